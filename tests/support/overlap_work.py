"""A program for two processes under torchrun: ``overlap_work.py OUT AMP`` trains three steps and writes what happened in the last.

``OUT`` gets one word per event, in order: "exchange" as a bucket of gradients sets out, "early" as the backward pass comes to the
encoder's first layers.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from steps import make_batch
from torch import Tensor

from benchmarks.step_inputs import default_config
from engine.parallel.exchange import Exchange
from engine.parallel.ranks import joined
from engine.training.build import build_engine
from engine.training.update import Updater

CPU = torch.device("cpu")
STEPS = 3


def main(out: Path, amp: str) -> None:
    events: list[str] = []
    with joined() as ranks:
        exchange = Exchange(ranks, CPU, timedelta(minutes=5))
        engine = build_engine(default_config(height_px=64, width_px=96, amp=amp), CPU, metric_factor=1.0, exchange=exchange)
        assert engine.parallel is not None

        def send(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
            events.append("exchange")
            return dist.all_reduce(bucket.buffer().div_(ranks.world), async_op=True).get_future().then(lambda done: done.value()[0])

        engine.parallel.register_comm_hook(None, send)
        engine.networks.encoder.encoder.layer1[1].register_full_backward_hook(lambda *_: events.append("early"))
        updater = Updater(engine)
        for _ in range(STEPS):
            events.clear()
            updater(make_batch())
        if ranks.is_first:
            out.write_text(" ".join(events))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
