"""The stopwatch tells the loader's waits from everything else."""

import time

import pytest

from engine.timing import Stopwatch


def test_a_pace_is_that_of_its_span() -> None:
    waited_s = 1.0
    watch = Stopwatch(lambda: waited_s)
    begin = watch.mark()
    time.sleep(0.2)
    watch.count(12)
    waited_s += 0.1
    whole = watch.pace(begin)
    assert whole.wait_share == pytest.approx(0.5, abs=0.2)
    assert 12 / 0.4 < whole.samples_per_s < 12 / 0.2
    later = watch.mark()
    time.sleep(0.02)
    assert watch.pace(later) is None
