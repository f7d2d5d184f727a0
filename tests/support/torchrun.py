"""Processes that train together, as tests start them: by torchrun, or one by one in its place; their pids, their output, their end."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from places import PROJECT

MD_TRAIN = Path(sys.executable).with_name("md-train")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
# Several people's cores are slow; what takes longer hangs.
TIMEOUT_S = 240.0
# The bar would be most of the output.
QUIET = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}


class Launched:
    """A process that a test has started, those that it starts, and what all of them print."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> dict[int, psutil.Process]:
        """The processes that torchrun has started, by rank; those alone that are there already."""
        found = {}
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error, KeyError):
                    # A process that a worker starts has its environment too.
                    if child.ppid() == self.process.pid:
                        found[int(child.environ()["RANK"])] = child
        return found

    def wait_for(self, condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
        """Until the processes got somewhere; fails with their output where they ended before."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"status {self.process.returncode}\n{self.output}"
            assert time.monotonic() < deadline_s, f"not there in {timeout_s} s\n{self.output}"
            time.sleep(0.01)

    def ended(self, timeout_s: float = TIMEOUT_S) -> int:
        """The exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s\n{self.output}") from None

    def tree(self) -> list[psutil.Process]:
        """The process and all that it has started."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        return []


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Launched]:
    """Run a command beside the block, at whose end it is killed with all that it has started."""
    with TemporaryDirectory() as folder, (Path(folder) / "output").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, text=True, cwd=PROJECT, env={**os.environ, **QUIET, **(environment or {})}
        )
        run = Launched(process, Path(log.name))
        known = run.tree()
        try:
            yield run
        finally:
            known += run.tree()
            for each in reversed(known):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


def torchrun_command(count: int, program: str | Path, *arguments: str, options: Sequence[str] = ("--standalone",)) -> list[str]:
    """torchrun's command line for so many processes of a program on this machine."""
    return [*TORCHRUN, *options, "--nproc_per_node", str(count), str(program), *arguments]


def torchrun(
    count: int, program: str | Path, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """So many processes of a program, to their end; ``stdout`` is what all of them print."""
    command = torchrun_command(count, program, *arguments)
    with started(command, env) as run:
        status = run.ended(timeout_s)
        return subprocess.CompletedProcess(command, status, run.output)


@contextmanager
def ranks_by_hand(commands: Sequence[Sequence[str]], *, port: int = 0) -> Iterator[list[Launched]]:
    """Processes that find each other as those of torchrun do, each with a command of its own.

    Args:
        commands: of each rank.
        port: where they meet; 0 takes a free one.
    """
    shared = {"WORLD_SIZE": str(len(commands)), "LOCAL_WORLD_SIZE": str(len(commands))}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    with ExitStack() as stack:
        yield [
            stack.enter_context(started(command, {"RANK": str(rank), "LOCAL_RANK": str(rank), **shared}))
            for rank, command in enumerate(commands)
        ]


def md_train(*arguments: str) -> list[str]:
    """The command of one process."""
    return [sys.executable, str(MD_TRAIN), *arguments]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` fills once for all processes that share the tests out."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = (factory.getbasetemp() if session is None else factory.getbasetemp().parent / session) / name
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def errors_in(*runs: Launched | subprocess.CompletedProcess[str]) -> list[str]:
    """The lines by which md-train says why it ends."""
    outputs = [run.output if isinstance(run, Launched) else run.stdout for run in runs]
    # Perhaps behind the progress bar of another process.
    return [line for output in outputs for line in re.findall(r"(?<!\w)Error: [^\r\n]*", output)]


def options(tree: Path, log_dir: Path, name: str, *extra: str) -> list[str]:
    """A small run that logs and saves every step; 5 steps per epoch on two processes where the tree has 20 samples."""
    return [
        "--data_path", str(tree), "--split", str(tree / "split"), "--log_dir", str(log_dir), "--model_name", name, "--no_cuda",
        "--height", "64", "--width", "96", "--batch_size", "2", "--frame_ids", "0", "--use_stereo", "--weights_init", "scratch",
        "--amp", "off", "--num_workers", "1", "--frame_store", "none", "--log_frequency", "1", "--save_minutes", "0", "--resume", "auto",
        *extra,
    ]  # fmt: skip


def metrics(run_folder: Path, mode: str = "train") -> dict[int, dict[str, float]]:
    """The logged lines of a run by step; fails where a step is logged twice."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["mode"] == mode]
    by_step = {line["step"]: line for line in found}
    assert len(by_step) == len(found), [line["step"] for line in found]
    return by_step


def signal_all(run: Launched, number: signal.Signals) -> None:
    """A signal to torchrun and its workers at once, as a scheduler sends it."""
    for process in run.tree():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
