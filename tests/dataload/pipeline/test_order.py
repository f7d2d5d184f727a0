"""The epoch is one permutation shared out; draws depend on nothing but seed, epoch and sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataload.pipeline.order import draw, epoch_batches
from splits.errors import InputError

SIZES = {"num_samples": st.integers(0, 200), "batch_size": st.integers(1, 12), "seed": st.integers(0, 3), "epoch": st.integers(0, 3)}
WORLDS = st.integers(1, 16)


def indices(batches):
    return np.concatenate([*batches, np.empty(0, np.int64)])


def ranks_of(world, **options):
    """The batches of each rank."""
    return [epoch_batches(**options, rank=rank, world=world) for rank in range(world)]


def steps_of(world, **options):
    """What the ranks take in each step, one after the other; fails where they have different numbers of batches."""
    return [np.concatenate(step).tolist() for step in zip(*ranks_of(world, **options), strict=True)]


def permutation_of(options):
    """The whole epoch in its order."""
    return indices(epoch_batches(**options | {"batch_size": 1})).tolist()


@settings(max_examples=100, deadline=None)
@given(**SIZES, world=WORLDS, shuffle=st.booleans())
def test_ranks_partition_the_epoch_but_for_less_than_a_global_batch_at_its_end(world, **options) -> None:
    ranks = ranks_of(world, **options)
    assert all(len(batch) == options["batch_size"] for batches in ranks for batch in batches)
    assert len({len(batches) for batches in ranks}) == 1
    seen = [index for step in steps_of(world, **options) for index in step]
    order = permutation_of(options)
    assert sorted(order) == list(range(options["num_samples"]))
    assert seen == order[: len(seen)]
    assert len(order) - len(seen) < options["batch_size"] * world


@settings(max_examples=100, deadline=None)
@given(**SIZES, world=WORLDS, done=st.integers(0, 220))
def test_a_step_is_the_same_samples_in_the_same_order_for_any_number_of_ranks(world, batch_size, **options) -> None:
    alone = steps_of(1, batch_size=batch_size * world, **options)
    for other in (n for n in range(2, 17) if batch_size * world % n == 0):
        assert steps_of(other, batch_size=batch_size * world // other, **options) == alone


@settings(max_examples=100, deadline=None)
@given(**SIZES, worlds=st.tuples(WORLDS, WORLDS, WORLDS), parts=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_runs_at_changing_numbers_of_ranks_see_each_sample_once(worlds, parts, batch_size, **options) -> None:
    seen: list[int] = []
    for world, part in zip(worlds, (*parts, 1), strict=True):
        steps = steps_of(world, batch_size=batch_size, done=len(seen), **options)
        seen += [index for step in steps[: round(part * len(steps))] for index in step]
    order = permutation_of(options)
    assert seen == order[: len(seen)]
    assert len(order) - len(seen) < batch_size * worlds[-1]


@settings(max_examples=100, deadline=None)
@given(**SIZES, world=WORLDS, shuffle=st.booleans())
def test_without_drop_last_the_batches_of_one_process_go_round(world, **options) -> None:
    (alone,) = ranks_of(1, drop_last=False, **options)
    assert len(indices(alone)) == options["num_samples"]
    assert all(len(batch) == options["batch_size"] for batch in alone[:-1])
    for rank, batches in enumerate(ranks_of(world, drop_last=False, **options)):
        assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in alone[rank::world]]


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
