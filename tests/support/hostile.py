"""Commands run as processes on files that someone made to harm, with what they took of the machine."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from places import PROJECT

MOST_BYTES, MOST_SECONDS = 2 * 2**30, 10.0
# A command that still runs then hangs; on a busy machine importing torch alone takes ten seconds.
HANGS_AFTER_S = 120
# Of the reference data's hostile files, the parser that each is for, by the beginning of its name.
PARSER_OF_FOUND = {
    "fuzz_calibration_yaml": "calibration_yaml",
    "fuzz_ckpt_adam": "adam_pth",
    "fuzz_ckpt_encoder": "encoder_pth",
    "fuzz_ckpt_pickle": "encoder_legacy",
    "fuzz_ckpt_state": "state_pt",
    "fuzz_gt_npz": "ground_truth",
    "fuzz_images": "picture_jpg",
    "fuzz_npy": "disps_npy",
    "fuzz_onnx": "onnx",
    "fuzz_opt_json": "opt_json_resume",
    "fuzz_rec_mcap": "mcap",
    "fuzz_split_lines": "split_lines",
    "fuzz_split_refs_demo": "split_lines",
    "fuzz_store": "frame_store",
    "absurd_dims": "onnx_foreign",
    "bigint2": "calibration_yaml",
    "date": "calibration_yaml",
    "deep2": "calibration_yaml",
    "lol_stereo": "calibration_yaml",
    "bomb50k.jpg": "picture_jpg",
    "bomb50k_16.png": "depth_png",
    "bomb50k_png": "bag",
    "huge": "depth_npy",
    "lz4_64MiB": "bag_lz4",
    "loop": "onnx_foreign",
    "meta_": "onnx",
    "nonutf8": "onnx_foreign",
    "pk": "disps_npy",
}
# The peak of a process counts what its parent had at the fork, and pytest may have torch: so a small process starts the command.
STARTER = """
import json, os, subprocess, sys
done = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(done.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024], file)
"""


class Outcome(NamedTuple):
    """What a command did.

    Attributes:
        status: its exit status; None where it was ended because it hung.
        lines: all that it printed on both streams.
        seconds: of the processor; a hang that waits shows in ``status``.
        peak_bytes: the most memory that it, or a process of its own, held at a time.
    """

    status: int | None
    lines: list[str]
    seconds: float
    peak_bytes: int


def command_of(name: str) -> list[str]:
    """How a command of the project (``md-data``) starts in this environment."""
    modules = {"md-data": "dataload.commands.md_data", "md-train": "engine.commands.md_train", "md-eval": "engine.commands.md_eval"}
    modules |= {"md-export": "export.commands.md_export", "md-predict": "export.commands.md_predict"}
    function = name.replace("-", "_")
    return [sys.executable, "-c", f"import sys; sys.argv[0] = {name!r}; from {modules[name]} import {function}; {function}()"]


def run_bounded(command: Sequence[str | Path], *, cwd: Path) -> Outcome:
    """Run a command in a folder, with one thread, and measure it; a name of ours (``md-data``) is started by ``command_of``.

    Args:
        cwd: an existing folder; the measurement is kept there for a moment.
    """
    first, *rest = map(os.fspath, command)
    whole = [*(command_of(first) if first.startswith("md-") else [first]), *rest]
    measured = cwd / ".measured"
    measured.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests" / "support")]),
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", STARTER, measured, *whole],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=HANGS_AFTER_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    status, seconds, peak = json.loads(measured.read_text()) if measured.exists() else (None, float("inf"), 0)
    return Outcome(status, output.decode(errors="backslashreplace").splitlines(), seconds, peak)


READING = """
import importlib, json, resource, sys, time
from pathlib import Path
module, _, name = sys.argv[1].partition(":")
read, said = getattr(importlib.import_module(module), name), {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    started = time.process_time()
    try:
        found = f"read {getattr(read(path), 'shape', '')}"
    except importlib.import_module("splits.errors").InputError as error:
        found = str(error)
    said[path.name] = [found, time.process_time() - started]
print(json.dumps(said))
"""


def read_apart(reader: Callable[[Path], object], folder: Path) -> dict[str, str]:
    """What a reader says of each file of a folder, in one process of its own; asserts that it stays within bounds for each.

    Args:
        reader: a function of a module, of the path alone; what it returns with a shape is told as ``read (4, 4)``.
    """
    outcome = run_bounded([sys.executable, "-c", READING, f"{reader.__module__}:{reader.__name__}", folder], cwd=folder.parent)
    assert outcome.status == 0, "\n".join(outcome.lines)[-3000:]
    assert outcome.peak_bytes < MOST_BYTES, f"{outcome.peak_bytes / 2**30:.2f} GiB"
    said = json.loads(outcome.lines[-1])
    assert len(outcome.lines) == 1, f"printed beside: {outcome.lines[:3]}"
    assert all(text.isprintable() and len(text) <= 1000 for text, _ in said.values()), said
    slow = {name: seconds for name, (_, seconds) in said.items() if seconds > MOST_SECONDS}
    assert not slow, slow
    return {name: text for name, (text, _) in said.items()}


def require_refused(outcome: Outcome, *named: str) -> str:
    """Assert that a command refused what it was given in one line that names ``named``, and took little for it; returns the line."""
    shown = "\n".join(outcome.lines)[-3000:]
    assert outcome.status in (1, 2), f"exit status {outcome.status}: {shown}"
    require_bounded(outcome)
    said = [line for line in outcome.lines if re.match(r"(Error|- problem): ", line)]
    assert said, f"no line says what is wrong: {shown}"
    assert len([line for line in said if line.startswith("Error: ")]) <= 1, shown
    for part in named:
        assert any(part in line for line in said), f"no line names {part!r}: {shown}"
    return said[-1]


def require_bounded(outcome: Outcome, *, readings: int = 1) -> None:
    """Assert that a command did not hang, showed no traceback, and took less than 2 GiB, and 10 s for each reading of its largest file."""
    shown = "\n".join(outcome.lines)[-3000:]
    assert outcome.status is not None, f"it hung: {shown}"
    assert outcome.status >= 0, f"it was ended by signal {-outcome.status}: {shown}"
    assert "Traceback (most recent call last)" not in shown, shown
    assert max(map(len, outcome.lines), default=0) < 5000, "a line that nobody can read"
    assert outcome.peak_bytes < MOST_BYTES, f"{outcome.peak_bytes / 2**30:.2f} GiB: {shown}"
    assert outcome.seconds < readings * MOST_SECONDS, f"{outcome.seconds:.1f} s of the processor: {shown}"
