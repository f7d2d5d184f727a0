"""A program for two processes under torchrun: one update of a compiled step that recomputes activations, whose loss rank 0 prints."""

from datetime import timedelta
from functools import partialmethod

import torch
from steps import make_batch
from torch import nn

from benchmarks.step_inputs import default_config
from engine.parallel.exchange import Exchange
from engine.parallel.ranks import joined
from engine.training.build import build_engine
from engine.training.update import Updater

if __name__ == "__main__":
    # Traced and cut up as for a GPU, but not translated to C++, which takes minutes.
    nn.Module.compile = partialmethod(nn.Module.compile, backend="aot_eager")
    with joined() as ranks:
        exchange = Exchange(ranks, torch.device("cpu"), timedelta(minutes=2))
        config = default_config(height_px=64, width_px=96, amp="off", compile=True, checkpoint_activations=True)
        engine = build_engine(config, torch.device("cpu"), metric_factor=1.0, exchange=exchange)
        engine.step.train()
        updater = Updater(engine)
        losses = [float(updater(make_batch((0, -1, 1), False, samples=2)).loss) for _ in range(2)]
        if ranks.is_first:
            print(updater, *losses)
