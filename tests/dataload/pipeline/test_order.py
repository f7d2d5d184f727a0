"""The epoch is one permutation shared out; draws depend on nothing but seed, epoch and sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataload.pipeline.order import draw, epoch_batches
from splits.errors import InputError

SIZES = {"num_samples": st.integers(0, 60), "batch_size": st.integers(1, 5), "seed": st.integers(0, 3), "epoch": st.integers(0, 3)}


def indices(batches):
    return np.concatenate([*batches, np.empty(0, np.int64)])


@settings(max_examples=60, deadline=None)
@given(**SIZES, world=st.integers(1, 4), shuffle=st.booleans(), drop_last=st.booleans())
def test_ranks_partition_the_epoch(world, drop_last, **options) -> None:
    ranks = [epoch_batches(**options, rank=rank, world=world, drop_last=drop_last) for rank in range(world)]
    seen = np.sort(np.concatenate([indices(batches) for batches in ranks]))
    if drop_last:
        assert all(len(batch) == options["batch_size"] for batches in ranks for batch in batches)
        assert len({len(batches) for batches in ranks}) == 1
        per_step = options["batch_size"] * world
        assert len(seen) == options["num_samples"] // per_step * per_step
        assert len(np.unique(seen)) == len(seen)
    else:
        assert seen.tolist() == list(range(options["num_samples"]))
        assert all(0 < len(batch) <= options["batch_size"] for batches in ranks for batch in batches)


@settings(max_examples=30, deadline=None)
@given(**SIZES, world=st.integers(2, 4))
def test_the_epoch_is_the_same_for_any_number_of_ranks(world, batch_size, **options) -> None:
    alone = epoch_batches(**options, batch_size=batch_size * world)
    shared = [epoch_batches(**options, batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
    assert [step.tolist() for step in alone] == [np.concatenate(step).tolist() for step in zip(*shared, strict=True)]


def test_epochs_and_seeds_shuffle_differently_and_a_call_repeats_itself() -> None:
    options = {"num_samples": 50, "batch_size": 5}
    orders = {(s, e): indices(epoch_batches(**options, seed=s, epoch=e)).tolist() for s in (0, 1) for e in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    assert indices(epoch_batches(**options, seed=1, epoch=1)).tolist() == orders[1, 1]


def test_without_shuffle_the_list_order_is_kept() -> None:
    batches = epoch_batches(7, batch_size=3, seed=0, epoch=4, shuffle=False, drop_last=False)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match=r"seed=-1 must be 0 or more"):
        epoch_batches(4, batch_size=1, seed=-1, epoch=0)


def test_draws_repeat_whatever_was_drawn_before() -> None:
    forwards = [draw(3, 1, i, training=True) for i in range(20)]
    for i in reversed(range(20)):
        again = draw(3, 1, i, training=True)
        assert (again.flip, again.jitter) == (forwards[i].flip, forwards[i].jitter)
        assert np.array_equal(again.color, forwards[i].color)
        assert np.array_equal(again.color_mean, forwards[i].color_mean)


def test_half_are_flipped_half_are_jittered_independently() -> None:
    draws = [draw(0, 0, i, training=True) for i in range(2000)]
    counts = {(f, j): sum((d.flip, d.jitter) == (f, j) for d in draws) for f in (False, True) for j in (False, True)}
    # Four binomials of mean 500 and standard deviation 19.
    assert all(abs(count - 500) < 80 for count in counts.values()), counts


def test_a_draw_without_jitter_is_the_identity_and_evaluation_draws_nothing() -> None:
    draws = [draw(0, 0, i, training=True) for i in range(50)] + [draw(0, 0, 0, training=False)]
    assert not draws[-1].flip
    assert not draws[-1].jitter
    for d in draws:
        identity = np.array_equal(d.color, np.eye(3)) and not d.color_mean.any()
        assert identity != d.jitter
