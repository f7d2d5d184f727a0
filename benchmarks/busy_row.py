"""A row of ``bench_busy`` in a process of its own, as OpenMP reads its variables once: steps for the seconds that a line asks for."""

from __future__ import annotations

import json
import sys
import time

import torch

from benchmarks.step_inputs import default_config, random_batch
from engine.training.build import build_engine
from engine.training.update import Updater


def main(height_px: int, width_px: int, batch_size: int) -> None:
    """Answers "ready", then each line of seconds with the steps that were made and what they took of the clock and of cores."""
    config = default_config(height_px=height_px, width_px=width_px, batch_size=batch_size, frame_ids=(0,), use_stereo=True)
    engine = build_engine(config, torch.device("cpu"), metric_factor=1.0)
    engine.step.train()
    update, batch = Updater(engine), random_batch(batch_size, (height_px, width_px), neighbours=0, stereo=True)
    update(batch)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        start_s, of_cores_s, steps = time.perf_counter(), time.process_time(), 0
        while not steps or time.perf_counter() - start_s < float(line):
            update(batch)
            steps += 1
        print(json.dumps([steps, time.perf_counter() - start_s, time.process_time() - of_cores_s]), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
