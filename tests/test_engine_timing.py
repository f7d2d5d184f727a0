"""The stopwatch counts what the consumer waits for, and nothing of what it does itself."""

import time

import pytest

from engine.timing import Stopwatch


def test_waits_are_those_for_the_next_batch() -> None:
    watch = Stopwatch()

    def slow():
        for number in range(4):
            time.sleep(0.05)
            yield number

    begin = watch.mark()
    for _ in watch.timed(slow(), 3):
        time.sleep(0.05)
    whole = watch.pace(begin)
    assert whole.wait_share == pytest.approx(0.5, abs=0.2)
    assert 12 / 0.8 < whole.samples_per_s < 12 / 0.4
    later = watch.mark()
    time.sleep(0.02)
    assert watch.pace(later) == (0.0, 0.0)
