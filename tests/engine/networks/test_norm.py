"""BatchNorm over the batches of several processes is that of the whole batch: outputs, gradients, running statistics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synchronised
import torch

from engine.networks.norm import UncountedNorm, synchronise_norms


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("check", [synchronised.check_a_norm, synchronised.check_an_encoder])
def test_the_batch_is_that_of_all_processes(check: Callable[[], None], world_size: int, tmp_path: Path) -> None:
    synchronised.in_processes(world_size, check, tmp_path)


def test_in_eval_mode_a_process_normalises_alone() -> None:
    norm = UncountedNorm(3)
    x = torch.rand(2, 3, 4, 6)
    norm(x)
    expected = norm.eval()(x)
    no_group: Any = object()
    synchronise_norms(norm, no_group)
    assert norm.group is no_group
    assert torch.equal(norm(x), expected)
