"""Two torchruns, as on two machines: one is killed and brought back, and the run goes on to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import two_machines
from torchrun import metrics


@pytest.mark.slow
def test_a_machine_that_is_lost_and_comes_back_costs_no_step(kitti_tree: Callable[..., Path], tmp_path: Path) -> None:
    status, printed = two_machines.train(tmp_path, kitti_tree(frames=12))
    assert status == 0, printed
    assert "Resuming from" in printed
    assert list(metrics(tmp_path / "run")) == list(range(two_machines.STEPS))
    assert (tmp_path / "run" / "models" / "weights_2" / "state.pt").is_file()
