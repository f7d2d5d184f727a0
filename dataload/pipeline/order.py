"""The order of samples and the draws of their augmentation: pure functions of the seed, the epoch and the sample.

Nothing here keeps a state, so a run is resumed from (epoch, samples done) alone, every loader backend gets the same batches, and one
rank or eight see the same epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dataload.pipeline.jitter import JITTER_PROBABILITY, affine_colour, draw_factors
from splits.errors import InputError

FLIP_PROBABILITY = 0.5
# Tells the stream of draws from the stream of the permutation: a seed sequence treats (seed, epoch) and (seed, epoch, 0) alike.
DRAW_STREAM = 1
REPLACEMENT_STREAM = 2


class Draw(NamedTuple):
    """Augmentation of one sample, alike for all its frames.

    Attributes:
        flip: mirror left and right.
        color, color_mean: (3, 3) float32; see ``dataload.pipeline.jitter.affine_colour``.
        jitter: False where the colour map is the identity, so that it can be skipped.
    """

    flip: bool
    color: np.ndarray
    color_mean: np.ndarray
    jitter: bool = False


IDENTITY_DRAW = Draw(False, np.eye(3, dtype=np.float32), np.zeros((3, 3), np.float32))


def epoch_batches(
    num_samples: int,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    shuffle: bool = True,
    drop_last: bool = True,
    done: int = 0,
) -> list[np.ndarray]:
    """Sample indices of each batch of one rank, int64 arrays of at most ``batch_size``.

    The epoch is one permutation (or the list order) without its first ``done`` samples. Batches of ``batch_size`` are cut from it one
    after the other and dealt out to the ranks in turn: batch k goes to rank k mod ``world``. So a step, one batch per rank, is a slice
    of ``world * batch_size`` samples, the same for any number of ranks with that product.

    With ``drop_last`` the samples after the last full step are left out, so all ranks have the same number of full batches. Without it
    the batches are those of one process, the last of which may be smaller; some ranks have one fewer than others, perhaps none.

    Args:
        done: samples of the epoch that the ranks have taken before, together. Their number of ranks may have been another one.

    Raises:
        InputError: if the seed is negative.
    """
    if seed < 0:
        raise InputError(f"seed={seed} must be 0 or more")
    assert 0 <= rank < world
    assert done >= 0
    order = np.random.default_rng((seed, epoch)).permutation(num_samples) if shuffle else np.arange(num_samples)
    order = order[done:].astype(np.int64)
    per_step = batch_size * world
    if drop_last:
        order = order[: len(order) // per_step * per_step]
    return [order[first : first + batch_size] for first in range(rank * batch_size, len(order), per_step)]


def draw(seed: int, epoch: int, index: int, *, training: bool) -> Draw:
    """The augmentation of sample ``index`` in ``epoch``: flip with probability 0.5, jitter with probability 0.5, independently.

    The identity unless ``training``.
    """
    if not training:
        return IDENTITY_DRAW
    rng = np.random.default_rng((seed, epoch, index, DRAW_STREAM))
    jitter, flip = rng.random(2) < (JITTER_PROBABILITY, FLIP_PROBABILITY)
    if not jitter:
        return IDENTITY_DRAW._replace(flip=bool(flip))
    color, color_mean = affine_colour(draw_factors(rng))
    return Draw(bool(flip), color, color_mean, True)


def replacements(seed: int, epoch: int, index: int, num_samples: int) -> Iterator[int]:
    """The samples that take the place of sample ``index`` in ``epoch``, should it be bad: the first of them that is not. Without end."""
    rng = np.random.default_rng((seed, epoch, index, REPLACEMENT_STREAM))
    while True:
        yield int(rng.integers(num_samples))
