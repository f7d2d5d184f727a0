"""The demo: what it compares its training with."""

from pathlib import Path

import pytest

from benchmarks.demo import untrained_scores


@pytest.mark.slow
def test_the_networks_are_scored_as_they_were_before_their_first_step(tmp_path: Path) -> None:
    scores = untrained_scores(tmp_path)
    assert scores["num_images"] > 0
    assert 0 < scores["a1"] < 0.6
    assert (tmp_path / "untrained" / "encoder.pth").is_file()
