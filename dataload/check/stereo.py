"""The check that stereo pairs are rectified and the left camera is the left one, by where patches of one image lie in the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataload.check.frames import Frames
from dataload.check.lists import FrameList, a_few_of_each
from dataload.check.report import Report, count
from dataload.datasets.base import Dataset, some
from dataload.frames.frame_ref import FrameRef
from dataload.frames.picture import read_picture
from dataload.system.threads import in_threads

MAX_PAIRS, MAX_PAIRS_PER_SEQUENCE = 48, 4
# Wider images are halved and so on until they are not; disparities then fit into a patch.
MAX_WIDTH_PX = 1280
PATCH_PX = (64, 256)
PATCHES = (4, 7)
# Finer detail than this is noise to both images: the deviation of a Gaussian over frequencies, cycles per pixel.
SMOOTHING = 0.15
# A peak this many standard deviations above its surface is no chance.
LEAST_PEAK = 12.0
LEAST_PATCHES = 4
MAX_ROW_OFFSET_PX = 1.0
# A patch that has moved less says nothing about the side.
LEAST_DISPARITY_PX = 1.0
SAME_PX = 1e-3


class Shifts(NamedTuple):
    """Where patches of the left image lie in the right one; those that both images show clearly.

    Attributes:
        x_px, y_px: (n,) float64 right less left, pixels at native size. column: (n,) int64, which of the ``PATCHES[1]`` columns.
    """

    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    column: NDArray[np.int64]

    @property
    def row_offset_px(self) -> float:
        """The largest of the medians of the left, middle and right third, so that a rotated camera shows too."""
        thirds = [self.y_px[self.column * 3 // PATCHES[1] == third] for third in range(3)]
        return max((float(np.median(third)) for third in thirds if third.size), key=abs, default=0.0)

    @property
    def swapped(self) -> bool:
        """Whether more patches lie further right in the right image, where all things lie further left."""
        return bool((self.x_px > LEAST_DISPARITY_PX).sum() > (self.x_px < -LEAST_DISPARITY_PX).sum())

    @property
    def same(self) -> bool:
        """Whether both images are one."""
        return bool(np.all(np.hypot(self.x_px, self.y_px) < SAME_PX))


def shifts(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> Shifts:
    """Patches of a pair (h, w, 3) of one size, by the peak of their phase correlation, to a fraction of a pixel."""
    factor = 1
    while left.shape[1] > factor * MAX_WIDTH_PX:
        factor *= 2
    first, second = (_grey(image, factor) for image in (left, right))
    height, width = (min(side, patch) for side, patch in zip(first.shape, PATCH_PX, strict=True))
    rows = np.linspace(0, first.shape[0] - height, PATCHES[0]).round().astype(int)
    columns = np.linspace(0, first.shape[1] - width, PATCHES[1]).round().astype(int)
    found = []
    for row in rows:
        for number, column in enumerate(columns):
            place = np.s_[row : row + height, column : column + width]
            shift = _shift(first[place], second[place])
            if shift is not None:
                found.append((*shift, number))
    x, y, column = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return Shifts(factor * x, factor * y, column.astype(np.int64))


def inspect_stereo(dataset: Dataset, lists: Sequence[FrameList], frames: Frames, report: Report) -> None:
    """Some pairs of each sequence that is trained on with both cameras."""
    moments: dict[tuple[str, int], FrameRef] = {}
    for part in (part for part in lists if part.use_stereo):
        for ref in frames.whole(dataset, part.used, use_stereo=True):
            moments.setdefault((ref.folder, ref.frame_index), ref)
    refs = list(moments.values())
    chosen = a_few_of_each(refs, [ref.folder for ref in refs], total=MAX_PAIRS, most=MAX_PAIRS_PER_SEQUENCE)
    # Unequal sizes are reported with the cameras.
    pairs = {_pair(dataset, ref): ref.folder for ref in chosen}
    pairs = {paths: folder for paths, folder in pairs.items() if _are_alike(paths, frames)}
    if not pairs:
        return
    measured = in_threads(partial(_shifts_of, pair) for pair in pairs)
    by_folder: dict[str, list[Shifts]] = {}
    for folder, shift in zip(pairs.values(), measured, strict=True):
        by_folder.setdefault(folder, []).append(shift)
    _judge({folder: _join(found) for folder, found in by_folder.items()}, len(pairs), report)


def _pair(dataset: Dataset, ref: FrameRef) -> tuple[Path, Path]:
    """The images of the left and the right camera."""
    own, other = dataset.image_path(ref), dataset.image_path(ref, stereo=True)
    return (own, other) if dataset.side(ref) == "l" else (other, own)


def _shifts_of(pair: tuple[Path, Path]) -> Shifts:
    left, right = map(read_picture, pair)
    return shifts(left, right)


def _are_alike(paths: tuple[Path, Path], frames: Frames) -> bool:
    return frames.size_px(paths[0].parent) == frames.size_px(paths[1].parent)


def _judge(by_folder: dict[str, Shifts], num_pairs: int, report: Report) -> None:
    clear = {folder: found for folder, found in by_folder.items() if len(found.x_px) >= LEAST_PATCHES}
    dim = sorted(set(by_folder) - set(clear))
    if dim:
        report.warn(f"stereo pairs of {some(dim)} have too little in common to be compared; are they of the same moments?")
    if not clear:
        return
    offsets = {folder: found.row_offset_px for folder, found in clear.items()}
    worst = max(offsets.values(), key=abs)
    nearer = np.concatenate([found.x_px for found in clear.values()])
    report.say(
        "Stereo",
        f"{count(num_pairs, 'pair')} of {count(len(by_folder), 'sequence')}: rows at most {abs(worst):.2f} px off, median disparity "
        f"{-float(np.median(nearer)):.1f} px",
    )
    report.facts["stereo"] = {"pairs_read": num_pairs, "row_offset_px": offsets, "median_disparity_px": -float(np.median(nearer))}
    same = [folder for folder, found in clear.items() if found.same]
    if same:
        report.problem(f"both cameras' images are the same ones in {some(same)}; put the other camera's there, or leave out --use_stereo")
    shifted = [f"{folder} by {offset:+.1f} px" for folder, offset in offsets.items() if abs(offset) > MAX_ROW_OFFSET_PX]
    if shifted:
        report.problem(
            f"the rows of the right camera's images are off in {count(len(shifted), 'sequence')}: {some(shifted)}, and stereo takes them "
            "for equal; rectify the pairs, or leave out --use_stereo"
        )
    swapped = [folder for folder, found in clear.items() if found.swapped]
    if swapped:
        report.problem(
            f"the cameras are swapped in {count(len(swapped), 'sequence')}: {some(swapped)}; what is called left lies to the right: "
            "exchange the folders of the two cameras"
        )


def _join(found: Sequence[Shifts]) -> Shifts:
    return Shifts(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _grey(image: NDArray[np.uint8], factor: int) -> NDArray[np.float32]:
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.reduce(factor) if factor > 1 else grey, dtype=np.float32)


def _shift(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[float, float] | None:
    """x and y of a patch's content in the second less in the first; None where they have too little in common."""
    height, width = first.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    a, b = (np.fft.rfft2((patch - patch.mean()) * window) for patch in (first, second))
    cross = np.conj(a) * b
    frequencies = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2
    cross *= np.exp(-frequencies / (2 * SMOOTHING**2)) / (np.abs(cross) + 1e-9)
    surface = np.fft.irfft2(cross, s=(height, width))
    y, x = (int(place) for place in np.unravel_index(surface.argmax(), surface.shape))
    if surface[y, x] < LEAST_PEAK * surface.std():
        return None
    dx = x + _vertex(surface[y, x - 1], surface[y, x], surface[y, (x + 1) % width])
    dy = y + _vertex(surface[y - 1, x], surface[y, x], surface[(y + 1) % height, x])
    return (dx - width if dx > width / 2 else dx), (dy - height if dy > height / 2 else dy)


def _vertex(before: float, at: float, after: float) -> float:
    """Where the parabola through three neighbours has its top, from the middle one."""
    curvature = before - 2 * at + after
    return 0.0 if curvature == 0 else float(0.5 * (before - after) / curvature)
