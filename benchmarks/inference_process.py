"""A way of predicting in a process of its own, as users run it; beside others, their memory, threads and compilers would be timed too.

In one process with the rest, torch eager takes less time than alone: it uses again what the others have made the allocator keep.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.inference_rows import NUM_LAYERS, PLAIN, Models, Run, Way, cpu_ways, depth_network, distance, gpu_ways, random_inputs
from benchmarks.profiles import top_kernels
from dataload.system.machine import usable_cores
from splits.errors import InputError

PLAIN_ANSWER = "plain.npy"
# What asks a process for the kernels of its passes, and how many passes it then makes.
PROFILE, PROFILED_PASSES = "profile", 10


class Task(NamedTuple):
    """Which way, of what network and images; ``folder`` holds the network's files and the plain answer."""

    name: str
    size_px: tuple[int, int]
    batch_size: int
    folder: Path
    gpu: bool
    num_layers: int = NUM_LAYERS


class Fault(NamedTuple):
    """Why a way is not timed; ``missing``: only because something is not installed here."""

    why: str
    missing: bool = False


def start(task: Task) -> Connection:
    """A process that serves the way; it ends with its connection."""
    ours, theirs = get_context("spawn").Pipe()
    get_context("spawn").Process(target=_serve_task, args=(task, theirs), daemon=True).start()
    theirs.close()
    return ours


def _serve_task(task: Task, connection: Connection) -> None:
    torch.set_num_threads(usable_cores())
    torch.backends.cudnn.benchmark = task.gpu
    network, inputs = depth_network(task.size_px, task.num_layers), random_inputs(task.batch_size, task.size_px)
    ways = (gpu_ways if task.gpu else cpu_ways)(network, Models(network, inputs, task.folder), inputs)
    serve(ways[task.name], task.folder / PLAIN_ANSWER, connection, is_plain=task.name == PLAIN)


def serve(way: Way, plain: Path, connection: Connection, *, is_plain: bool) -> None:
    """Send None or the fault, then the seconds of as many passes as each message asks for, or the kernels, until the connection ends.

    Args:
        plain: the file of the plain way's answer, which that way makes.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = check_way(way, plain, is_plain=is_plain)
    connection.send(made if isinstance(made, Fault) else None)
    while not isinstance(made, Fault):
        try:
            passes = connection.recv()
        except EOFError:
            return
        if passes == PROFILE:
            connection.send(top_kernels(partial(_repeat, made), runs=PROFILED_PASSES, device=device))
            continue
        begin = time.perf_counter()
        for _ in range(passes):
            made()
        connection.send(time.perf_counter() - begin)


def _repeat(run: Run) -> None:
    for _ in range(PROFILED_PASSES):
        run()


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_way(way: Way, plain: Path, *, is_plain: bool) -> Run | Fault:
    """Build the way and run it once; the run if it agrees with the plain answer, else why not.

    The plain answer is computed in fp32 throughout, without TF32, though the plain way is timed as torch runs it by default.
    """
    try:
        run = way.build()
        with _exact_convolutions() if is_plain else nullcontext():
            answer = way.read(run())
        if is_plain:
            np.save(plain, answer)
        apart = distance(answer, np.load(plain))
    except InputError as error:
        return Fault(str(error), missing=True)
    # Compilers and runtimes fail in many ways, and none of them keeps the other rows from being timed.
    except Exception as error:
        traceback.print_exc()
        return Fault((str(error).strip() or repr(error)).splitlines()[0])
    # Not a comparison that NaN would pass.
    return run if apart <= way.agreement else Fault(f"its answer is off by {apart:.2%} of the plain one's spread")
