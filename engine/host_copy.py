"""Tensors from a device to the host, in copies that nobody waits for before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class HostCopy:
    """A copy of tensors on its way to the host: they are put together on their device and leave it in one piece, into pinned memory.

    What happens to the tensors afterwards does not concern the copy.

    Args:
        tensors: by name, all on one device.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        # The widest numbers first: each tensor then begins at a multiple of its own width.
        by_width = sorted(tensors.items(), key=lambda item: -item[1].element_size())
        self._contents = {name: (tensor.shape, tensor.dtype) for name, tensor in by_width}
        self._buffer = torch.cat([tensor.contiguous().flatten().view(torch.uint8) for _, tensor in by_width])
        self._arrived: torch.cuda.Event | None = None
        if self._buffer.device.type != "cpu":
            packed = self._buffer
            self._buffer = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            self._buffer.copy_(packed, non_blocking=True)
            # Whoever waits sleeps: a thread that spins would take a core from those that load.
            self._arrived = torch.cuda.Event(blocking=True)
            self._arrived.record(torch.cuda.current_stream(packed.device))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors' values by name, waited for if need be; any thread may ask."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found, start = {}, 0
        for name, (shape, dtype) in self._contents.items():
            end = start + shape.numel() * dtype.itemsize
            found[name] = self._buffer[start:end].view(dtype).view(shape).numpy()
            start = end
        return found


def one_behind(tensors: Iterable[Tensor]) -> Iterator[NDArray[Any]]:
    """The values of each tensor, in order. On a GPU one is handed out when the work for the next has been given to it.

    Args:
        tensors: each is asked for when the one before is on its way to the host.
    """
    waiting: deque[HostCopy] = deque()
    for tensor in tensors:
        waiting.append(HostCopy({"": tensor}))
        # A CPU has done its work by now.
        if len(waiting) > 1 or tensor.device.type == "cpu":
            yield waiting.popleft().arrays()[""]
    for copy in waiting:
        yield copy.arrays()[""]
