"""Scoring predicted inverse depth against ground truth as the field publishes it: alignment, errors, the table. Numpy alone.

Only the pixels that count are ever interpolated: a laser scan measures one in thirty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.frames.sparse_depth import SparseDepth
from dataload.system.progress import progress_bar
from dataload.system.threads import in_threads
from engine.choices import ALIGNMENTS
from engine.evaluation.metrics import EIGEN, METRICS, MIN_SCORED_M, Protocol, crop_bounds, depth_terms, mean_errors
from engine.evaluation.scores import BAND_EDGES_M, ERROR_EDGES, Scores, exact_sum
from engine.resample import resize_at
from splits.errors import InputError

# Few enough images to stay in the processor's cache, and enough per job to be worth a thread.
IMAGES_AT_ONCE, IMAGES_PER_JOB = 4, 16


class Rules(NamedTuple):
    """How predictions are scored: which pixels count, how depth is aligned, and the factor applied before."""

    protocol: Protocol = EIGEN
    alignment: str = "median"
    scale_factor: float = 1.0


PUBLISHED = Rules()


class Fit(NamedTuple):
    """How a prediction is brought to metres: 1 / depth = scale * inv_depth + shift. ``ratio`` is the median ratio, 1 without."""

    scale: float
    shift: float = 0.0
    ratio: float = 1.0


def aligned_depth_m(
    inv_depth: NDArray[np.float32], fits: Sequence[Fit], counts: NDArray[np.intp], protocol: Protocol
) -> NDArray[np.float32]:
    """Depth (n,) in metres within the protocol's range; what is not ahead of the camera counts as farthest.

    Args:
        inv_depth: (n,) of B images, one after another. fits, counts: of each image, how it is aligned and how many of the n it has.
    """
    aligned = inv_depth * np.repeat(np.array([found.scale for found in fits], np.float32), counts)
    if any(found.shift for found in fits):
        aligned += np.repeat(np.array([found.shift for found in fits], np.float32), counts)
    np.maximum(aligned, np.float32(1 / protocol.max_pred_m), out=aligned)
    depth: NDArray[np.float32] = np.divide(np.float32(1), aligned, out=aligned)
    return np.maximum(depth, np.float32(MIN_SCORED_M), out=depth)


def fit(inv_depth: NDArray[np.float32], gt: NDArray[np.float32], rules: Rules) -> Fit:
    """How to align a prediction (n,) with its truth (n,), metres.

    ``none``: depth = scale_factor / inv_depth. ``median``: that times median(truth) / median(depth), as published. ``lstsq``: scale and
    shift of inverse depth that minimise the squared distance to 1 / truth (Ranftl et al. 2020, section 5), whatever the factor.
    """
    assert rules.alignment in ALIGNMENTS
    if rules.alignment == "none":
        return Fit(1 / rules.scale_factor)
    if rules.alignment == "median":
        near, far = _middle_two(inv_depth)
        ratio = sum(_middle_two(gt)) / (rules.scale_factor * (1 / near + 1 / far))
        return Fit(1 / (rules.scale_factor * ratio), ratio=ratio)
    x, y = inv_depth.astype(np.float64), 1 / gt.astype(np.float64)
    spread = x - x.mean()
    variance = float(spread @ spread)
    scale = float(spread @ y) / variance if variance > 0 else 0.0
    return Fit(scale, float(y.mean() - scale * x.mean()))


def _middle_two(values: NDArray[np.float32]) -> tuple[float, float]:
    """The two values whose mean is the median; of an odd number, the middle one twice. Much faster than ``numpy.median``."""
    middle = values.size // 2
    parted = np.partition(values, middle)
    upper = float(parted[middle])
    return (upper if values.size % 2 else float(np.max(parted[:middle]))), upper


class ScoredPixels(NamedTuple):
    """The pixels that count of B images with truths of one size, image after image: truth (n,) metres, predicted inverse depth (n,).

    ``ends`` (B+1,) are each image's bounds in n.
    """

    gt: NDArray[np.float32]
    inv_depth: NDArray[np.float32]
    ends: NDArray[np.intp]


def scored_pixels(inv_depths: NDArray[np.float32], truths: Sequence[SparseDepth], protocol: Protocol) -> ScoredPixels:
    """The pixels of B predictions (B,h,w) at which their truths, of one size, count."""
    top, bottom, left, right = crop_bounds(protocol.crop, *truths[0].size_px)
    row_counts = np.stack([truth.row_counts[top:bottom] for truth in truths])
    firsts = [int(truth.row_counts[:top].sum()) for truth in truths]
    ends = np.concatenate([[0], row_counts.sum(axis=1).cumsum().astype(np.intp)])
    spans = [slice(first, first + count) for first, count in zip(firsts, np.diff(ends).tolist(), strict=True)]
    gt = np.concatenate([truth.values_m[span] for truth, span in zip(truths, spans, strict=True)])
    columns = np.concatenate([truth.columns[span] for truth, span in zip(truths, spans, strict=True)])
    counts = _limits_mask(gt, columns, left, right, protocol)
    # Few are left out from here on: to read them all and keep those that count is cheaper than to choose first.
    inv_depth = resize_at(inv_depths, truths[0].size_px, top, row_counts, columns.astype(np.intp))
    kept = np.flatnonzero(counts)
    return ScoredPixels(gt.take(kept), inv_depth.take(kept), np.searchsorted(kept, ends))


def scored_mask(truth: SparseDepth, protocol: Protocol) -> NDArray[np.bool_]:
    """Which of the truth's n values count (n,)."""
    top, bottom, left, right = crop_bounds(protocol.crop, *truth.size_px)
    return (truth.rows >= top) & (truth.rows < bottom) & _limits_mask(truth.values_m, truth.columns, left, right, protocol)


def require_scored(truths: Sequence[SparseDepth], protocol: Protocol, names: Sequence[str], *, progress: bool = False) -> None:
    """What ``score`` requires of each truth, checked before the minutes of predicting: ``InputError`` unless some of its pixels count."""

    def any_counts(number: int) -> bool:
        return bool(scored_mask(truths[number], protocol).any())

    checked = in_threads(partial(any_counts, number) for number in range(len(truths)))
    bar = progress_bar(len(truths), "ground truth", "images", items=checked, shown=progress, in_logs=True)
    for name, counts in zip(names, bar, strict=True):
        if not counts:
            raise _nothing_counts(name, protocol)


def _nothing_counts(name: str, protocol: Protocol) -> InputError:
    limits = f"crop {protocol.crop}, from {protocol.min_gt_m:g} to {protocol.max_gt_m:g} m"
    return InputError(f"image {name} has no ground truth that counts ({limits}); take its line out of the list")


def _limits_mask(gt: NDArray[np.float32], columns: NDArray[np.uint16], left: int, right: int, protocol: Protocol) -> NDArray[np.bool_]:
    counts: NDArray[np.bool_] = (gt > protocol.min_gt_m) & (gt < protocol.max_gt_m)
    counts &= (columns >= left) & (columns < right)
    return counts


class BlockScore(NamedTuple):
    """What some images add to ``Scores``."""

    per_image: NDArray[np.float64]
    ratios: list[float]
    bands: NDArray[np.float64]
    histogram: NDArray[np.int64]


# float32's infinity, its bits read as an integer.
INFINITY_BITS = 0x7F800000
Job = Callable[[], list[BlockScore]]


def score_block(
    inv_depths: NDArray[np.float32], truths: Sequence[SparseDepth], rules: Rules, names: Sequence[str], *, details: bool
) -> BlockScore:
    """Score B predictions (B,h,w) whose truths have one size; the arguments and errors of ``score``."""
    require_inv_depth(inv_depths, names)
    scored = scored_pixels(inv_depths, truths, rules.protocol)
    spans = [slice(*ends) for ends in pairwise(scored.ends.tolist())]
    for span, name in zip(spans, names, strict=True):
        if span.start == span.stop:
            raise _nothing_counts(name, rules.protocol)
    fits = [fit(scored.inv_depth[span], scored.gt[span], rules) for span in spans]
    depth = aligned_depth_m(scored.inv_depth, fits, np.diff(scored.ends), rules.protocol)
    terms = depth_terms(scored.gt, depth)
    sums = np.stack([terms[:, span].sum(axis=1) for span in spans])
    bands, histogram = _no_details()
    if details:
        bands, histogram = _by_distance(scored.gt, terms), _by_error(scored.gt, depth)
    return BlockScore(mean_errors(sums, np.diff(scored.ends)), [found.ratio for found in fits], bands, histogram)


def require_inv_depth(inv_depths: NDArray[np.float32], names: Sequence[str]) -> None:
    """``InputError`` unless predictions (B,h,w) are inverse depth throughout, above 0 and finite; names the first that is not."""
    # Positive finite numbers are ordered as the integers of the same bits; NaN and infinity lie above them, the others below.
    bits = np.ascontiguousarray(inv_depths, np.float32).view(np.int32)
    if np.min(bits) > 0 and np.max(bits) < INFINITY_BITS:
        return
    number = next(n for n, image in enumerate(bits) if not (np.min(image) > 0 and np.max(image) < INFINITY_BITS))
    raise InputError(f"image {names[number]} has NaN, infinite, zero or negative inverse depth; it must be above 0 everywhere")


def _no_details() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.zeros((len(BAND_EDGES_M) - 1, 1 + len(METRICS))), np.zeros(len(ERROR_EDGES) - 1, np.int64)


def _by_distance(gt: NDArray[np.float32], terms: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pixels and sums of terms (B,8) by distance of the truth; beyond the last edge counts to the last band."""
    width_m, last = BAND_EDGES_M[1] - BAND_EDGES_M[0], len(BAND_EDGES_M) - 2
    band = np.minimum(gt * np.float32(1 / width_m), last).astype(np.intp)
    sums = [np.bincount(band, weights=term, minlength=last + 1) for term in terms]
    return np.stack([np.bincount(band, minlength=last + 1), *sums], axis=-1)


def _by_error(gt: NDArray[np.float32], depth: NDArray[np.float32]) -> NDArray[np.int64]:
    num_bins = len(ERROR_EDGES) - 1
    relative = (depth / gt - 1 - ERROR_EDGES[0]) * (num_bins / (ERROR_EDGES[-1] - ERROR_EDGES[0]))
    return np.bincount(np.clip(relative, 0, num_bins - 1).astype(np.intp), minlength=num_bins).astype(np.int64)


def score(
    inv_depths: Iterable[NDArray[np.float32]],
    truths: Sequence[SparseDepth],
    rules: Rules = PUBLISHED,
    *,
    names: Sequence[str] | None = None,
    details: bool = False,
) -> Scores:
    """Score N predictions against their ground truths, image by image; the error of the set is the mean of the images' errors.

    depth = scale_factor / inv_depth at the truth's resolution, aligned (see ``fit``), clamped to the protocol's range.

    Args:
        inv_depths: inverse depth, above 0, in blocks (B,h,w) of any length, N maps in all; each map is bilinearly resized to its truth. A
            block is scored in other threads while the next is taken.
        truths: N sparse maps, possibly made when they are taken.
        names: what to call the images in messages; their numbers, counted from 0, by default.
        details: fill ``bands`` and ``histogram`` too, which takes as long again.

    Raises:
        InputError: another number of truths than of predictions, an image without a pixel to score, a prediction that is no inverse depth.
    """
    names = names or [f"{number} (counted from 0)" for number in range(len(truths))]

    def jobs() -> Iterator[Job]:
        done = 0
        for block in inv_depths:
            for start in range(0, len(block), IMAGES_PER_JOB):
                part = block[start : start + IMAGES_PER_JOB]
                yield partial(_score_mixed, part, truths, done, rules, names, details=details)
                done += len(part)
        if done < len(truths):
            raise InputError(f"{done} predictions but {len(truths)} ground-truth maps; both must belong to the same split list")

    blocks = [block for mixed in in_threads(jobs()) for block in mixed] or [BlockScore(np.zeros((0, len(METRICS))), [], *_no_details())]
    per_image = np.concatenate([block.per_image for block in blocks])
    ratios = np.array([ratio for block in blocks for ratio in block.ratios]) if rules.alignment == "median" else None
    histogram: NDArray[np.int64] = np.sum([block.histogram for block in blocks], axis=0)
    return Scores(per_image, ratios, exact_sum(block.bands for block in blocks), histogram)


def _score_mixed(
    inv_depths: NDArray[np.float32], truths: Sequence[SparseDepth], first: int, rules: Rules, names: Sequence[str], *, details: bool
) -> list[BlockScore]:
    """Score the predictions from number ``first`` on, neighbours with truths of the same size together."""
    if first + len(inv_depths) > len(truths):
        raise InputError(f"more predictions than the {len(truths)} ground-truth maps; both must belong to the same split list")
    mine = [truths[first + number] for number in range(len(inv_depths))]
    begins = (n for n in range(1, len(mine)) if n % IMAGES_AT_ONCE == 0 or mine[n].size_px != mine[n - 1].size_px)
    bounds = [0, *begins, len(mine)]
    return [
        score_block(inv_depths[start:end], mine[start:end], rules, names[first + start : first + end], details=details)
        for start, end in pairwise(bounds)
    ]
