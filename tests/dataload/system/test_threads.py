"""Work in threads: in order, so much ahead and no more, and the rest cancelled once the caller leaves."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dataload.system.threads import in_order, in_threads, thread_pool
from dataload.system.workers import Workers


def test_results_come_in_order_and_so_many_jobs_are_begun() -> None:
    begun: list[int] = []

    def jobs() -> Iterator[Callable[[], int]]:
        for number in range(10):
            begun.append(number)
            yield partial(pow, number, 2)

    results = in_threads(jobs(), number=2, ahead=3)
    assert begun == []
    assert next(results) == 0
    assert begun == [0, 1, 2, 3]
    assert list(results) == [number**2 for number in range(1, 10)]


def failing(done: list[int], number: int) -> None:
    if number == 1:
        raise ValueError("the second")
    done.append(number)


def test_a_failure_is_raised_in_its_place_and_cancels_the_rest() -> None:
    done: list[int] = []
    results = in_threads((partial(failing, done, number) for number in range(100)), number=1, ahead=50)
    next(results)
    with pytest.raises(ValueError, match="the second"):
        next(results)
    assert len(done) < 99
    assert next(results, "over") == "over"


def test_what_has_not_begun_when_the_caller_leaves_is_cancelled() -> None:
    held, done = threading.Event(), []

    def job(number: int) -> None:
        if number:
            held.wait()
        done.append(number)

    with thread_pool(1) as pool:
        results = in_order(((number, [pool.submit(job, number)]) for number in range(9)), ahead=4)
        assert next(results) == (0, [None])
        results.close()
        held.set()
    assert set(done) <= {0, 1}  # the second may have begun


@pytest.mark.parametrize("number", [0, 2])
def test_workers_do_all_parts_of_a_job_before_it_is_yielded(number: int) -> None:
    workers = Workers(number)
    jobs = [list[int]() for _ in range(5)]
    for job in workers.run(jobs, lambda job: [partial(job.append, part) for part in range(3)], ahead=2):
        assert sorted(job) == [0, 1, 2]
    workers.close()
