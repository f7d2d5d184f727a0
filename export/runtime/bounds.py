"""What an ONNX file may take of this machine, whatever its graph asks for: memory of the CPU, and time.

A file of 600 bytes can hold a graph that fills the memory or never ends. onnxruntime has limits for both, but for its longest operators:
these are left to themselves in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from splits.errors import InputError, StillComputing
from splits.limits import MODEL_BYTES, MODEL_SECONDS

T = TypeVar("T")
# How often it is looked whether the limit is reached, and how long onnxruntime has to end when it is asked to.
POLL_S, GRACE_S = 0.25, 2.0
# Results that onnxruntime computes when it opens a file, instead of at each run.
FOLDED_BYTES = 2**27
FATAL = 4


def limit_memory(onnxruntime: Any, settings: Any) -> None:
    """Let sessions of ``settings`` take ``MODEL_BYTES`` of the CPU's memory at most, all of the process together; of weights too."""
    settings.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(FOLDED_BYTES))
    settings.add_session_config_entry("session.use_env_allocators", "1")
    _make_allocator(onnxruntime)


@cache
def _make_allocator(onnxruntime: Any) -> None:
    info = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
    # Asked for as needed: by default an arena doubles, and would end at half of its limit.
    arena = onnxruntime.OrtArenaCfg({"max_mem": MODEL_BYTES.most, "arena_extend_strategy": 1})
    with suppress(RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.Fail):  # the program has made one itself
        onnxruntime.create_and_register_allocator(info, arena)


def within_seconds(limit_s: float, work: Callable[[], T], stop: Callable[[], object], path: Path) -> T:
    """What ``work`` gives, if it is done before it has taken ``limit_s`` of the processors' time, and at least half of that by the clock.

    A busy machine gives little of its processors' time, which so counts as little.

    Args:
        limit_s: seconds.
        work: what to do with the model; runs in a thread, which is left behind where ``stop`` does not end it.
        stop: asks it to end.
        path: the model, for the message.

    Raises:
        StillComputing: it takes longer, and does not end when it is asked to. InputError: it takes longer; and whatever ``work`` raises.
    """
    result: Future[T] = Future()
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    try:
        threading.Thread(target=_keep, args=(work, result), daemon=True).start()
        while not wait([result], POLL_S).done:
            if time.process_time() - start_cpu_s >= limit_s and time.monotonic() - start_s >= limit_s / 2:
                break
    except KeyboardInterrupt:
        # Whoever comes back from onnxruntime while Python ends aborts the process.
        _end(result, stop)
        raise
    if result.done():
        return result.result()
    raise (InputError if _end(result, stop) else StillComputing)(
        f"{path} takes more than {MODEL_SECONDS.most} s of the processor for one image, which no depth network does; "
        f"export it again, or where it is meant, set {MODEL_SECONDS.variable} to more"
    )


def _end(result: Future[T], stop: Callable[[], object]) -> bool:
    """Ask the work to end; whether it has."""
    stop()
    return bool(wait([result], GRACE_S).done)


def _keep(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # raised by whoever waits for the result
        result.set_exception(error)
