"""A way of predicting in a process of its own, as users run it; beside others, their memory, threads and compilers would be timed too.

In one process with the rest, torch eager takes less time than alone: it uses again what the others have made the allocator keep.
"""

from __future__ import annotations

import time
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.inference_rows import NUM_LAYERS, PLAIN, Models, Run, Way, cpu_ways, depth_network, distance, gpu_ways, random_inputs
from dataload.system.machine import usable_cores
from splits.errors import InputError

PLAIN_ANSWER = "plain.npy"


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
    """Send None or the fault, then the seconds of as many passes as each message asks for, until the connection ends.

    Args:
        plain: the file of the plain way's answer, which that way makes.
    """
    made = check_way(way, plain, is_plain=is_plain)
    connection.send(made if isinstance(made, Fault) else None)
    while not isinstance(made, Fault):
        try:
            passes = connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()
        for _ in range(passes):
            made()
        connection.send(time.perf_counter() - begin)


def check_way(way: Way, plain: Path, *, is_plain: bool) -> Run | Fault:
    """Build the way and run it once; the run if it agrees with the plain answer, else why not."""
    try:
        run = way.build()
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
