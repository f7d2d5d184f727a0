"""What the processes exchange while they train: gradients, sums of what is logged, and what one of them wants all to do."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import timedelta
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.parallel.ranks import Ranks
from splits.errors import InputError
from splits.faults import first_line

# torch ends a process whose gradients do not come, without a word that helps; the words of ``agreed`` come before.
GRADIENTS_LATER = timedelta(seconds=60)
# torch has renamed the switch.
NAMES_FORWARD_SYNC = "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters


class Wishes(NamedTuple):
    """What all processes are to do after a step.

    Attributes:
        stop: to save and end, as a signal wants it: its number, 0 without. save: a checkpoint. show: how training goes.
        fault: to save and end, as one of them has a fault, which it reports then.
    """

    stop: int = 0
    save: bool = False
    show: bool = False
    fault: bool = False

    @property
    def ends(self) -> bool:
        """Whether training ends with this step."""
        return self.stop != 0 or self.fault


class Exchange:
    """What a run's processes exchange; of one process alone, nothing.

    Every method is called by all ranks, in the same order.

    Args:
        ranks: who they are.
        device: where this one trains.
        timeout: how long one of them may leave the others waiting.

    Raises:
        InputError: the processes do not reach each other.
    """

    def __init__(self, ranks: Ranks, device: torch.device, timeout: timedelta) -> None:
        self.ranks = ranks
        self._words: dist.ProcessGroup | None = None
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._asked = Wishes()
        if ranks.world == 1:
            return
        ranks.meet()
        self._words = self._join(device, timeout)

    def _join(self, device: torch.device, timeout: timedelta) -> dist.ProcessGroup:
        """Make torch's default group, which exchanges gradients, and the group of words, which is returned."""
        # Imported here: torch is also built without it, which is enough for one process.
        from torch._C._distributed_c10d import PrefixStore

        ranks, on_gpu = self.ranks, device.type == "cuda"
        try:
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=PrefixStore("group", ranks.client()),
                rank=ranks.rank,
                world_size=ranks.world,
                timeout=timeout + GRADIENTS_LATER if on_gpu else timeout,
                device_id=device if on_gpu else None,
            )
            words = dist.new_group(backend="gloo", timeout=timeout)
        except RuntimeError as error:
            raise InputError(
                f"rank {ranks.rank} cannot reach the others ({first_line(error)}); name the network interface that connects the "
                "machines: GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, for example eth0"
            ) from error
        assert isinstance(words, dist.ProcessGroup)  # all ranks are in it
        return words

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The group that exchanges gradients; None for one process alone."""
        return dist.group.WORLD if self.ranks.world > 1 else None

    def parallel(self, step: nn.Module, *, accumulates: bool) -> DistributedDataParallel:
        """``step``, whose gradients are averaged over the ranks, of which there are several, during the backward pass.

        All ranks have the weights of rank 0 afterwards.

        Args:
            step: alike on all ranks. All its parameters have a gradient in every call.
            accumulates: whether gradients of several calls are added up before they are exchanged.
        """
        self.ranks.meet()
        # Strides of a 1x1 kernel say the same in two ways, which torch takes for a mistake.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # The buffers are BatchNorm's statistics, which training does not read: ``share_buffers`` is enough.
        without_buffers: dict[str, Any] = {"forward_sync_buffers" if NAMES_FORWARD_SYNC else "broadcast_buffers": False}
        # What torch takes for a static graph has to exchange in each call.
        return DistributedDataParallel(step, gradient_as_bucket_view=True, static_graph=not accumulates, **without_buffers)

    @torch.no_grad()
    def share_buffers(self, networks: nn.Module) -> None:
        """Give all ranks the buffers of rank 0."""
        if self.ranks.world > 1:
            for buffer in networks.buffers():
                dist.broadcast(buffer, 0)

    def meet(self) -> None:
        """Wait until all ranks have handed their work to their devices.

        Whoever then waits for its own device does not wait for the gradients of a rank that is lost: of that no device would tell.
        """
        self.sums([0.0])

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the ranks."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, values: Sequence[float]) -> list[float]:
        """The greatest of each value over the ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.ranks.world == 1:
            return list(values)
        row = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(row, operation, group=self._words)
        return row.tolist()

    def agreed(self, mine: Wishes) -> Wishes:
        """What at least one rank wanted at the last call: the same for all ranks, one call late so that none waits for another's step.

        One process alone gets what it wants at once.
        """
        if self.ranks.world == 1:
            return mine
        # What is asked for already is not asked for again before all have heard it.
        new = [int(wish) * (not asked) for wish, asked in zip(mine, self._asked, strict=True)]
        before = self._settle()
        row = torch.tensor(new, dtype=torch.int32)
        self._pending = dist.all_reduce(row, dist.ReduceOp.MAX, group=self._words, async_op=True), row
        self._asked = _wishes(new)
        return before

    def outstanding(self) -> Wishes:
        """What was wanted at the last call of ``agreed``, where no further call follows soon; nothing more for one process alone."""
        self._asked = Wishes()
        return self._settle()

    def _settle(self) -> Wishes:
        if self._pending is None:
            return Wishes()
        work, row = self._pending
        work.wait()
        self._pending = None
        return _wishes(row.tolist())


def _wishes(row: Sequence[int]) -> Wishes:
    stop, save, show, fault = row
    return Wishes(stop, bool(save), bool(show), bool(fault))
