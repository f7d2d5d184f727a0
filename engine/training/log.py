"""The log of a run: a progress bar, TensorBoard, ``metrics.jsonl``, written in a thread of its own; and what reads device values for it."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dataload.system.console import console
from dataload.system.files import whole_file
from dataload.system.json_text import json_text
from dataload.system.progress import progress_bar
from engine.training.timing import Pace
from splits.faults import name_faults, parsing
from splits.reading import read_lines

if TYPE_CHECKING:
    from types import TracebackType

    import torch
    from torch import Tensor

    from engine.training.showing import Snapshot
    from engine.training.step import LossTerms

METRICS_FILE = "metrics.jsonl"
# Monodepth2 logs densely at first, then sparsely.
EARLY_STEPS = 2000
LATE_EVERY_STEPS = 2000


def is_log_step(batch_index: int, global_step: int, *, log_frequency: int) -> bool:
    """Whether Monodepth2 logs this step: every ``log_frequency`` batches at first, every 2000 steps later."""
    early = batch_index % log_frequency == 0 and global_step < EARLY_STEPS
    return early or global_step % LATE_EVERY_STEPS == 0


def loss_scalars(terms: LossTerms, scales: Sequence[int]) -> dict[str, Tensor]:
    """The loss and its parts under their names in the metrics."""
    return {"loss": terms.loss, **{f"loss/{scale}": value for scale, value in zip(scales, terms.per_scale, strict=True)}}


def read_scalars(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Device scalars as floats, in one transfer: the only place where training waits for the device."""
    # Imported here: scoring disparities made elsewhere needs only the console.
    import torch

    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    plain = {name: float(value) for name, value in values.items() if name not in tensors}
    if tensors:
        stacked = torch.stack([t.detach().float() for t in tensors.values()]).cpu().tolist()
        plain |= dict(zip(tensors, stacked, strict=True))
    return {name: plain[name] for name in values}


def peak_gib(device: torch.device) -> float | None:
    """The most memory of the GPU that tensors have taken so far, in GiB; None on a CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**30


class Cost(NamedTuple):
    """What training costs: its pace since the last line, None where it is not meaningful; the peak of GPU memory, None on a CPU."""

    pace: Pace | None
    memory_gib: float | None

    def scalars(self) -> dict[str, float]:
        """The known values under their names in the metrics."""
        timed = {} if self.pace is None else {"time/data_wait": self.pace.wait_share, "time/samples_per_s": self.pace.samples_per_s}
        return timed if self.memory_gib is None else timed | {"memory/peak_gib": self.memory_gib}

    def __str__(self) -> str:
        """The end of a line on the console."""
        waits = "" if self.pace is None else f" | waiting for data: {100 * self.pace.wait_share:.0f} %"
        return waits if self.memory_gib is None else f"{waits} | peak memory: {self.memory_gib:.2f} GiB"


class RunLog:
    """TensorBoard event files under ``train/`` and ``val/``, ``metrics.jsonl``, and the progress bar of one run.

    One thread writes everything, in the order in which it is handed over, beside the training. Its faults are raised by the next call
    of ``write``, by ``drain``, or at the end.

    Args:
        total_steps: how many the whole run is planned to make. done_steps: how many of them are done.
        validated: whether the validation after the last of these is done too.
    """

    def __init__(self, run_folder: Path, *, total_steps: int, done_steps: int, validated: bool = False) -> None:
        import torch
        from torch.utils.tensorboard import SummaryWriter

        # A resumed run replays the steps after its checkpoint: what was logged of them is purged, in both places.
        # The line of a validation has the number of steps before it, that of a step the number of those before it.
        repeats_from = {"train": done_steps, "val": done_steps + validated}
        self._metrics_path = run_folder / METRICS_FILE
        _keep_before(self._metrics_path, repeats_from)
        self._hook_before, threading.excepthook = threading.excepthook, _leave_out_writers
        self._writers = {mode: SummaryWriter(str(run_folder / mode), purge_step=step or None) for mode, step in repeats_from.items()}
        self._bar = progress_bar(total_steps, "", "steps", done=done_steps, in_logs=True, smoothing=0.05)
        # The thread keeps to one core; why the caller's setting is asked for first is said in ``Workers``.
        torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, "log", initializer=torch.set_num_threads, initargs=(1,))
        self._pending: deque[Future[None]] = deque()
        self._snapshots: dict[str, Future[None]] = {}
        self._left_out = False

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            # What was handed over before an error is written too; a user who presses Ctrl-C twice waits for no more than is begun.
            self._thread.shutdown(cancel_futures=isinstance(error, KeyboardInterrupt))
            if error is None:
                self.drain()
        finally:
            with suppress(OSError):
                self._bar.close()
            try:
                for mode, writer in self._writers.items():
                    # A fault that ends the run is not hidden by what follows from it.
                    with suppress(OSError) if error is not None else name_faults(self._metrics_path.with_name(mode)):
                        writer.close()
            finally:
                threading.excepthook = self._hook_before

    def write(self, mode: str, step: int, epoch: int, values: Mapping[str, float], take: Callable[[], Snapshot | None]) -> None:
        """Hand over a line of metrics, and the snapshot that ``take`` makes of its step.

        Where the last snapshot of that mode is not written yet, none is taken, so that they never pile up; the line is always written.

        Raises:
            InputError: ground truth of an earlier snapshot is damaged.
            OSError: an earlier line or picture could not be written.
        """
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        before = self._snapshots.get(mode)
        has_room = before is None or before.done()
        done = self._thread.submit(self._write, mode, step, epoch, values, take() if has_room else None)
        self._pending.append(done)
        if has_room:
            self._snapshots[mode] = done
        elif not self._left_out:
            self._left_out = True
            console.info(
                "Step %d is logged without pictures and depth errors, as those of the last one are still being written (said once); "
                "a larger --log_frequency leaves more time",
                step,
            )

    def drain(self) -> None:
        """Wait until all that was handed over is written; raises as ``write``."""
        while self._pending:
            self._pending.popleft().result()

    def _write(self, mode: str, step: int, epoch: int, values: Mapping[str, float], snapshot: Snapshot | None) -> None:
        """In the log's thread."""
        writer, folder = self._writers[mode], self._metrics_path.with_name(mode)
        if snapshot is not None:
            values = {**values, **snapshot.scalars()}
        with name_faults(self._metrics_path), self._metrics_path.open("a", encoding="utf-8") as file:
            file.write(json_text({"mode": mode, "epoch": epoch, "step": step, **{k: round(v, 7) for k, v in values.items()}}) + "\n")
        with name_faults(folder):
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            for name, image in snapshot.images() if snapshot is not None else ():
                writer.add_image(name, image, step, dataformats="HWC")

    def advance(self) -> None:
        """Show that one more step is done."""
        with suppress(OSError):  # of a terminal that is gone; the run is not
            self._bar.update()

    def progress(self, epoch: int, loss: float, pace: Pace | None) -> None:
        """Show loss, speed and the share of time spent waiting for data."""
        # The narrower the terminal, the less is left of the end.
        timed = {} if pace is None else {"data wait": f"{pace.wait_share:.0%}", "samples/s": f"{pace.samples_per_s:.1f}"}
        self._bar.set_postfix({"loss": f"{loss:.4f}", **timed, "epoch": epoch}, refresh=False)


class NoLog:
    """What a rank that does not log has in place of a ``RunLog``."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, mode: str, step: int, epoch: int, values: Mapping[str, float], take: Callable[[], Snapshot | None]) -> None:
        """Nothing, and no snapshot."""

    def drain(self) -> None:
        """Nothing to wait for."""

    def advance(self) -> None:
        """No bar."""

    def progress(self, epoch: int, loss: float, pace: Pace | None) -> None:
        """No bar."""


def _leave_out_writers(args: threading.ExceptHookArgs) -> None:
    """Show what went wrong in a thread, except in TensorBoard's writers: their fault is raised and reported at the next write."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(args)


def _keep_before(path: Path, steps: Mapping[str, int]) -> None:
    """Leave the lines of each mode that are of steps below its own."""
    if not path.is_file():
        return
    remedy = "move it away to resume the run without its earlier lines"
    whole = [line for line in read_lines(path, "the log of a run", remedy) if line.endswith("}")]
    with parsing(path, "the log of a run", remedy):
        kept = [line for line, values in zip(whole, map(json.loads, whole), strict=True) if values["step"] < steps[values["mode"]]]
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
