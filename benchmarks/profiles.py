"""Which kernels take the time of a row, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import click
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# The longest kernels, and as much of their names as fits into a table.
MOST_KERNELS, NAME_CHARS = 12, 80


class Kernel(NamedTuple):
    """A kernel's name, its launches per step or pass, its milliseconds per step or pass, and their share of all kernels'."""

    name: str
    launches: float
    ms: float
    share: float


def top_kernels(run: Callable[[], object], *, runs: int, device: torch.device) -> list[Kernel]:
    """The kernels that take most of a call of ``run``, which makes ``runs`` steps; on a CPU, torch's operators.

    Empty, after a line that says why, where the profiler fails: what was timed before is worth no less.
    """
    on_gpu = device.type == "cuda"
    try:
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU], acc_events=True) as profiler:
            run()
            if on_gpu:
                torch.cuda.synchronize(device)
        events: list[Any] = list(profiler.key_averages())
    except Exception as error:
        click.echo(f"no profile: {error}")
        return []
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    spent_us = {event.key: 0.0 for event in events if event.device_type == wanted}
    launches = dict.fromkeys(spent_us, 0)
    for event in events:
        if event.key in spent_us and event.device_type == wanted:
            spent_us[event.key] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
            launches[event.key] += event.count
    total_us = sum(spent_us.values()) or 1.0
    longest = sorted(spent_us, key=spent_us.__getitem__, reverse=True)[:MOST_KERNELS]
    return [Kernel(key[:NAME_CHARS], launches[key] / runs, spent_us[key] / runs / 1e3, spent_us[key] / total_us) for key in longest]
