"""Outputs that one process holds while it writes them: real processes, killed ones, other names of one output, folders in folders."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from places import PROJECT

from dataload.system.files import whole_file, whole_folder
from dataload.system.leftovers import aside_of, temporary_of
from dataload.system.lock_files import is_held, one_process
from dataload.system.locks import hold, lock_of, require_free_below
from splits.errors import InputError

REMEDY = "name another"
HOLDER = """
import sys
from pathlib import Path
from dataload.system.locks import hold
with hold(Path(sys.argv[1]), "name another", folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Process:
    """Another process that holds an output until it is told to end."""

    def __init__(self, output: Path, kind: str = "file") -> None:
        self.running = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(output), kind], cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.running.stdout is not None
        assert self.running.stdout.readline() == "held\n"

    def end(self) -> None:
        self.running.communicate("")

    def kill(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.communicate()


@pytest.fixture
def start() -> Iterator[type[Process]]:
    begun: list[Process] = []

    class Started(Process):
        def __init__(self, output: Path, kind: str = "file") -> None:
            super().__init__(output, kind)
            begun.append(self)

    yield Started
    for process in begun:
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(output: Path, *, folder: bool = False) -> str:
    with pytest.raises(InputError) as caught, hold(output, REMEDY, folder=folder):
        pass
    return str(caught.value)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_second_is_refused_at_once_and_told_who_is_first(kind: str, tmp_path: Path, start: type[Process]) -> None:
    output = tmp_path / "out"
    first = start(output, kind)
    said = refusal(output, folder=kind == "folder")
    assert re.fullmatch(
        rf"{output} is being written by -c \(process {first.running.pid} on \S+, since [\d-]{{10}} [\d:]{{8}} UTC\); name another",
        said,
    )
    first.end()
    with hold(output, REMEDY, folder=kind == "folder"):
        assert names(tmp_path) == [".out.lock"]
    assert names(tmp_path) == []


def test_a_lock_goes_with_its_process_and_what_it_leaves_is_used_again(tmp_path: Path, start: type[Process]) -> None:
    output = tmp_path / "out"
    start(output).kill()
    assert names(tmp_path) == [".out.lock"]
    with hold(output, REMEDY):
        assert json.loads(lock_of(output).read_text())["pid"] == os.getpid()
    with hold(output, REMEDY):  # again, in the same process
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("values", [{"pid": 2**40}, {"pid": "1"}, {"pid": None}, {"host": 5}, {"more": 1}, {}])
def test_a_holder_that_says_nonsense_is_another_process(values: dict[str, object], tmp_path: Path, start: type[Process]) -> None:
    output = tmp_path / "out"
    start(output)
    said = json.loads(lock_of(output).read_text())
    lock_of(output).write_text(json.dumps(said | values) if values else "[[]]")
    assert refusal(output) == f"{output} is being written by another process; name another"


def test_an_output_is_known_by_any_of_its_names(tmp_path: Path, start: type[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    start(tmp_path / "real", "folder")
    monkeypatch.chdir(tmp_path)
    for name in ("real", "real/", "./real", "link", "real/../real", "link/."):
        assert "is being written by" in refusal(Path(name), folder=True)
    assert sorted(names(tmp_path)) == [".real.lock", "link", "real"]


def test_folders_above_and_below_are_held_too_but_not_files_in_them(tmp_path: Path, start: type[Process]) -> None:
    run, inner = tmp_path / "run", tmp_path / "run" / "models" / "best"
    first = start(run, "folder")
    assert f"{inner} lies in {run}, which is being written by" in refusal(inner, folder=True)
    assert not run.exists()
    with hold(run / "scores.json", REMEDY):
        pass
    assert not run.exists()
    first.end()
    first = start(inner, "folder")
    assert f"{run}: models/best in it is being written by" in refusal(run, folder=True)
    with pytest.raises(InputError, match=r"run: models/best in it is being written by -c \(process"):
        require_free_below(run, REMEDY)
    first.end()
    start(run / "scores.json")
    with hold(run, REMEDY, folder=True), hold(inner, REMEDY, folder=True):  # what holds a folder may write in it
        pass
    require_free_below(run, REMEDY)


def test_a_folder_is_held_by_one_thread_of_a_process(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, hold(tmp_path / "run", "choose another", folder=True):
        with hold(tmp_path / "run", "choose another", folder=True):
            pass
        entered = pool.submit(ExitStack().enter_context, hold(tmp_path / "run", "choose another", folder=True))
        with pytest.raises(InputError, match=r"run is being written by another thread of this process; choose another$"):
            entered.result()


def test_many_at_once_take_turns(tmp_path: Path) -> None:
    """The race of taking a lock file away: no two may ever hold it, and of those that start together one does.

    Who is refused pauses: on a machine whose cores are taken, the others would else use up the time of the one that holds it.
    """
    program = """
import sys, time
from pathlib import Path
from dataload.system.locks import hold
from splits.errors import InputError
output, inside = Path(sys.argv[1]), Path(sys.argv[2])
held = 0
while held < 20:
    try:
        with hold(output, ""):
            inside.mkdir()
            inside.rmdir()
            held += 1
    except InputError:
        time.sleep(0.001)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "out", tmp_path / "inside"], cwd=PROJECT, text=True, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_keep_the_lock_of_a_parent_that_has_ended(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from dataload.system.locks import hold
with hold(Path(sys.argv[1]), ""):
    child = os.fork()
    if not child:
        os.close(1)
        time.sleep(60)
    print(child, flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "out"], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
    try:
        with hold(tmp_path / "out", REMEDY):
            pass
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_where_no_lock_can_be_had_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: type[Process]) -> None:
    (tmp_path / "file").write_text("")
    with hold(tmp_path / "file" / "out", REMEDY), hold(Path("/"), REMEDY, folder=True):
        pass
    for error in (NotImplementedError(), OSError(37, "No locks available"), PermissionError(13, "Permission denied")):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patched, ExitStack() as stack:
            patched.setattr("filelock.FileLock.acquire", refuse)
            stack.enter_context(hold(tmp_path / "out", REMEDY, folder=True))
    monkeypatch.setitem(sys.modules, "filelock", None)
    with hold(tmp_path / "out", REMEDY):
        pass
    assert names(tmp_path) == ["file"]


def test_where_only_the_folder_itself_can_be_written_its_lock_lies_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr("dataload.system.locks.lock_of", lambda path: tmp_path / "file" / path.name)
    with hold(tmp_path / "out", REMEDY):
        assert names(tmp_path / "out") == [".lock"]
    assert names(tmp_path / "out") == []


def test_a_lock_file_that_nobody_holds_is_taken_away(tmp_path: Path) -> None:
    lock = tmp_path / ".a.lock"
    with one_process(lock):
        assert is_held(lock)
    lock.touch()
    assert not is_held(lock)
    assert not lock.exists()


def test_the_next_holder_clears_what_killed_ones_left_and_nothing_else(tmp_path: Path, start: type[Process]) -> None:
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    for leftover in (temporary_of(run), temporary_of(run / "models" / "weights_3")):
        leftover.mkdir()
        (leftover / "half").write_text("")
    temporary_of(run / "metrics.jsonl").write_text("half")
    aside = aside_of(run / "models" / "best")
    aside.mkdir()
    (aside / "depth.pth").write_text("whole")
    superseded = aside_of(run / "models" / "step_1")
    superseded.mkdir()
    (run / "models" / "step_1").mkdir()
    writer = start(run / "models" / "disps.npy")  # which lives, and writes a file of its own in there
    kept = [tmp_path / ".run.tmp", temporary_of(tmp_path / "other"), run / ".mine.old", temporary_of(run / "models" / "disps.npy")]
    for path in kept:
        path.write_text("not of a killed writer of this output")
    with hold(run, REMEDY, folder=True):
        pass
    assert all(path.is_file() for path in kept)
    assert names(run / "models") == sorted([kept[3].name, ".disps.npy.lock", "best", "step_1"])
    assert names(run) == [".mine.old", "models"]
    assert (run / "models" / "best" / "depth.pth").read_text() == "whole"
    writer.end()
    with hold(run / "models" / "disps.npy", REMEDY):
        pass
    assert not kept[3].exists()


def test_what_earlier_versions_left_is_cleared_too(tmp_path: Path) -> None:
    models = tmp_path / "run" / "models"
    for name in (".step_7.tmp", ".weights_3.tmp", ".weights_3.old", ".weights_2.old", "weights_3"):
        (models / name).mkdir(parents=True)
        (models / name / "depth.pth").write_text(name)
    (models / ".opt.123.tmp.json").write_text("half")
    with hold(tmp_path / "run", REMEDY, folder=True):
        pass
    assert names(models) == ["weights_2", "weights_3"]
    assert [(models / name / "depth.pth").read_text() for name in names(models)] == [".weights_2.old", "weights_3"]


def test_what_is_left_of_a_name_that_is_too_long_is_cleared(tmp_path: Path) -> None:
    long = tmp_path / f"{'x' * 250}.npy"
    temporary_of(long).write_text("half")
    with hold(long, REMEDY):
        pass
    assert names(tmp_path) == []


def test_who_waits_gets_it_from_a_process_and_from_a_thread(tmp_path: Path, start: type[Process]) -> None:
    output, waited = tmp_path / "out", []
    first = start(output, "folder")

    def work() -> bool:
        with hold(output, "", folder=True, waiting=lambda: waited.append(1)):
            return not waited or names(tmp_path) == [".out.lock"]

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(work) for _ in range(2)]
        while not waited:
            assert not any(each.done() for each in done)
            time.sleep(0.01)
        first.end()
        assert all(each.result(timeout=60) for each in done)
    assert names(tmp_path) == []


def test_temporary_names_are_of_one_process_and_one_writing(tmp_path: Path) -> None:
    path = tmp_path / "a_disp.npy"
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second
        assert {first.suffix, second.suffix} == {".npy"}
        assert f".{os.getpid()}-" in first.name
        first.write_text("first")
        second.write_text("second")
    assert names(tmp_path) == ["a_disp.npy"]
    long = tmp_path / f"{'x' * 250}.npy"
    with hold(long, REMEDY), whole_file(long) as temporary:
        temporary.write_text("fits")
    assert long.read_text() == "fits"


def test_a_folder_being_replaced_survives_a_kill_and_a_second_writer(tmp_path: Path, start: type[Process]) -> None:
    best = tmp_path / "best"
    program = """
import os, signal, sys
from pathlib import Path
from dataload.system import files
from dataload.system.files import whole_folder
files._exchange = lambda one, other: False  # as on a disk that cannot swap two folders
rename = Path.rename
def kill(path, target):
    rename(path, target)
    os.kill(os.getpid(), signal.SIGKILL)
with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("new")
    Path.rename = kill
"""
    best.mkdir()
    (best / "a").write_text("old")
    subprocess.run([sys.executable, "-c", program, best], cwd=PROJECT, check=False)
    assert not best.exists()
    with hold(best, REMEDY, folder=True):
        pass
    assert names(tmp_path) == ["best"]
    assert (best / "a").read_text() == "old"
    start(best, "folder")
    with pytest.raises(InputError, match="best is being written by -c"), whole_folder(best):
        pass
    assert (best / "a").read_text() == "old"


def test_a_new_folder_replaces_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with whole_folder(out, is_new=True) as folder:
        (folder / "a").write_text("ours")

    def write() -> None:
        with whole_folder(out, is_new=True) as folder:
            (folder / "a").write_text("second")

    with pytest.raises(OSError, match="not empty"):
        write()
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("a", "ours")]
    assert names(tmp_path) == ["out"]


def test_what_is_no_file_of_a_disk_is_written_to_as_it_is(tmp_path: Path) -> None:
    with whole_file(Path("/dev/null")) as path:
        path.write_text("gone")
    assert not Path("/dev/null").is_file()
    assert names(tmp_path) == []
