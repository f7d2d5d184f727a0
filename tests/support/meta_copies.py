"""What stands for a GPU in tests of waiting: the meta device. Its tensors have shapes and no values, so an unplanned read fails."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from engine import host_copy
from engine.training import showing

META = torch.device("meta")


def record_copies(monkeypatch: pytest.MonkeyPatch, happened: list[str]) -> None:
    """From now on copies off the meta device can be read, as ones; that they are begun and read is added to ``happened``."""

    class Copy:
        def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
            self.contents = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
            happened.append("copy")

        def arrays(self) -> dict[str, np.ndarray]:
            happened.append("read")
            return {name: torch.ones(shape, dtype=dtype).numpy() for name, (shape, dtype) in self.contents.items()}

    monkeypatch.setattr(host_copy, "HostCopy", Copy)
    monkeypatch.setattr(showing, "HostCopy", Copy)
