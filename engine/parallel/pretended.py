"""A world of processes of which only the first is there: for the plan of a run that will be larger than this machine."""
# Annotations are evaluated in this file: torch checks those of a hook.

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from dataload.system.launch import Launch
from engine.parallel.exchange import Exchange
from engine.parallel.ranks import Ranks


class Pretended(Exchange):
    """What rank 0 of ``world`` processes exchanges, on a CPU: torch's fake group takes it and gives it to nobody.

    Attributes:
        bucket_bytes: of the last step, the size of each bucket of gradients that all processes would have exchanged.
    """

    def __init__(self, world: int) -> None:
        self.bucket_bytes: list[int] = []
        super().__init__(Ranks(Launch(world=world)), torch.device("cpu"), timedelta(0))

    def _join(self, device: torch.device, timeout: timedelta) -> dist.ProcessGroup:
        dist.init_process_group("fake", store=FakeStore(), rank=self.ranks.rank, world_size=self.ranks.world)
        assert dist.group.WORLD is not None
        return dist.group.WORLD

    def watch(self, parallel: DistributedDataParallel) -> None:
        """From now on the sizes of its buckets are kept; call it before its first step."""
        parallel.register_comm_hook(self, _keep_size)


def _keep_size(state: Pretended, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """What exchanges a bucket: here it comes back as it is, which torch's fake group cannot do by itself."""
    if bucket.index() == 0:
        state.bucket_bytes.clear()
    state.bucket_bytes.append(bucket.buffer().nbytes)
    exchanged: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    exchanged.set_result(bucket.buffer())
    return exchanged


@contextmanager
def pretended(world: int) -> Iterator[Pretended]:
    """The exchange of a world that is not there, for the block."""
    try:
        yield Pretended(world)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
