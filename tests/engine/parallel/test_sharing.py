"""What several processes have found, put together: in the list's order, to the last digit, however long it is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import numpy as np
import pytest
import torch.distributed as dist

from dataload.system.launch import Launch
from engine.evaluation.metrics import METRICS
from engine.evaluation.scores import BAND_EDGES_M, ERROR_EDGES, Scores, exact_sum
from engine.evaluation.sharing import gather_scores
from engine.parallel.ranks import ALONE, Ranks
from engine.parallel.sharing import gather_rows, share_of

T = TypeVar("T")


def together(world: int, work: Callable[[Ranks], T]) -> list[T]:
    """What ``work`` gives on each rank; they run in threads of this process, and talk through torch's store."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    ranks = [Ranks(Launch(rank, world, rank, world), store.clone()) for rank in range(world)]
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(work, ranks))


@pytest.mark.parametrize(("world", "num_images"), [(1, 11), (2, 11), (3, 11), (3, 4), (5, 3)])
def test_whole_batches_go_round_and_rows_come_back_in_order(world: int, num_images: int) -> None:
    rows = np.random.default_rng(0).standard_normal((num_images, 2, 3)) / 3

    def work(ranks: Ranks) -> tuple[list[int], np.ndarray]:
        share = share_of(ranks, num_images, 2)
        return share, gather_rows(ranks, rows[share], share)

    found = together(world, work)
    assert sorted(index for share, _ in found for index in share) == list(range(num_images))
    for share, gathered in found:
        assert all(index + 1 in share for index in share if index % 2 == 0 and index + 1 < num_images)
        np.testing.assert_array_equal(gathered, rows)
        assert gathered.dtype == rows.dtype


def test_words_that_are_longer_than_the_store_takes_at_once() -> None:
    heard = together(2, lambda ranks: ranks.gather(str(ranks.rank) * 5 * 2**20))
    assert heard == [["0" * 5 * 2**20, "1" * 5 * 2**20]] * 2


def scores_of(bands: np.ndarray, images: list[int]) -> Scores:
    """Made-up scores of some images, each of which adds its ``bands``."""
    per_image = np.random.default_rng(1).uniform(0, 1, (len(bands), len(METRICS)))[images]
    total = exact_sum([*bands[images], np.zeros_like(bands[0])])
    return Scores(per_image, per_image[:, 0] * 30, total, np.full(len(ERROR_EDGES) - 1, len(images), np.int64))


def test_scores_are_those_of_one_process_to_the_last_digit() -> None:
    num_images = 60
    # Sums of such numbers depend on their order, if they are rounded.
    bands = np.random.default_rng(2).uniform(0, 1, (num_images, len(BAND_EDGES_M) - 1, 8)) ** 9 * 1e7
    assert (bands.sum(0) != bands[::-1].cumsum(0)[-1]).any()
    whole = scores_of(bands, list(range(num_images)))

    def work(ranks: Ranks) -> Scores:
        share = share_of(ranks, num_images, 7)
        return gather_scores(ranks, scores_of(bands, share), share)

    for world in (2, 3, 4):
        for found in together(world, work):
            for name in ("per_image", "median_ratios", "bands", "histogram"):
                np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
            assert found.band_errors().tolist() == whole.band_errors().tolist()
    assert gather_scores(ALONE, whole, range(num_images)) is whole


def test_a_truth_so_small_that_its_error_overflows_is_still_added_up() -> None:
    total = exact_sum([np.array([1e300, np.inf]), np.array([1e-300, 1.0])])
    assert total.astype(np.float64).tolist() == [1e300, np.inf]
    assert exact_sum([total.astype(str)]).tolist() == total.tolist()
