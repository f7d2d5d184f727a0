"""Faults of the disk: each names the file as the user knows it, what the system says, and what to do about it."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dataload.commands.md_data import md_data
from dataload.system.files import whole_file, whole_folder
from splits.errors import InputError
from splits.faults import CUT_SHORT, REMEDIES, describe_fault, name_faults, parsing

ROOM_BYTES = 64 * 1024


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 64 KiB of its own, where the machine lets us have one."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mount = shutil.which("mount")
    if (
        mount is None
        or os.geteuid() != 0
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        folder.rmdir()
        pytest.skip("making a small disk takes the rights of root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@pytest.mark.parametrize("code", REMEDIES)
def test_each_fault_says_what_where_and_what_to_do(code: int, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, name_faults(tmp_path / "a.json"):  # noqa: PT011
        raise OSError(code, os.strerror(code))
    assert describe_fault(caught.value) == f"{tmp_path / 'a.json'}: {os.strerror(code)}; {REMEDIES[code]}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("data"), "a.json is not a list ('data'); write it again"),
        (RecursionError("maximum recursion depth"), "a.json is not a list (it is nested too deeply); write it again"),
        (OSError("image file is truncated"), "cannot read a.json (not a list: image file is truncated); write it again"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot read a.json (Permission denied); write it again"),
        (
            MemoryError(),
            "cannot read a.json (it asks for more memory than there is); free some memory, or if the file is damaged write it again",
        ),
        (InputError("b.json is empty"), "b.json is empty"),
    ],
)
def test_whatever_content_raises_is_one_line(error: Exception, said: str) -> None:
    with pytest.raises(InputError) as caught, parsing("a.json", "a list", "write it again"):
        raise error
    assert str(caught.value) == said


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'lz4'", name="lz4"), KeyboardInterrupt(), SystemExit(1)])
def test_what_no_content_raises_passes_a_parser(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, parsing("a.json", "a list", "write it again"):
        raise error
    assert caught.value is error


def test_a_write_cut_short_is_told_without_a_number(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, name_faults(tmp_path / "a.npy"):  # noqa: PT011
        raise OSError("6400 requested and 1000 written")
    assert describe_fault(caught.value) == f"{tmp_path / 'a.npy'}: 6400 requested and 1000 written; {CUT_SHORT}"


def test_the_name_is_the_one_a_user_knows(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole_folder(tmp_path / "run") as temporary:
        (temporary / "sub" / "a.txt").write_text("no such folder")
    assert caught.value.filename == str(tmp_path / "run" / "sub" / "a.txt")
    with pytest.raises(FileNotFoundError) as caught_file, whole_file(tmp_path / "none" / "a.json") as temporary:
        temporary.write_text("no such folder")
    assert caught_file.value.filename == str(tmp_path / "none" / "a.json")
    with pytest.raises(FileNotFoundError) as other, name_faults(tmp_path / "out", tmp_path / "temporary"):
        (tmp_path / "in").read_text()
    assert other.value.filename == str(tmp_path / "in"), "what was read keeps its own name"


def test_a_name_in_bytes_is_told_as_text(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011
        os.mkdir(os.fsencode(tmp_path / "none" / "run"))
    assert describe_fault(raised.value).startswith(f"{tmp_path}/none/run: No such file")
    (tmp_path / "temporary").mkdir()
    with pytest.raises(OSError) as caught, name_faults(tmp_path / "run", tmp_path / "temporary"):  # noqa: PT011
        os.mkdir(os.fsencode(tmp_path / "temporary" / "sub" / "a"))
    assert describe_fault(caught.value).startswith(f"{tmp_path}/run/sub/a: No such file")


def _video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(12):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (192, 320, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _lists(_: Path, disk: Path) -> list[str]:
    return ["splits", f"--write={disk}/lists"]


def _frames_of_a_video(elsewhere: Path, disk: Path) -> list[str]:
    _video(elsewhere / "drive.mp4")
    return ["from-video", str(elsewhere / "drive.mp4"), "--out", f"{disk}/data", "--no_split"]


def _world(_: Path, disk: Path) -> list[str]:
    return ["demo", "--out", f"{disk}/world"]


@pytest.mark.parametrize("command", [_lists, _frames_of_a_video, _world])
def test_a_full_disk_is_one_line_in_every_command(command: Callable[[Path, Path], list[str]], small_disk: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(md_data, command(tmp_path, small_disk))
    assert result.exit_code == 1
    line = result.output.strip().splitlines()[-1]
    assert line.startswith(f"Error: {small_disk}/"), result.output
    assert line.endswith(f": {os.strerror(errno.ENOSPC)}; {REMEDIES[errno.ENOSPC]}")


def test_a_limit_on_the_size_of_files_is_named_as_such(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        result = CliRunner().invoke(md_data, ["splits", f"--write={tmp_path}/lists"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 1
    assert "_files.txt: File too large; the disk, or a limit (ulimit -f), takes no file that large" in result.output


PROGRAM = """
import errno, sys
from dataload.commands.command import Command

def body():
    if sys.argv[1] == "reader":
        print("x" * 1_000_000, flush=True)
    raise OSError(errno.EPIPE, "Broken pipe")

Command("probe", callback=body)(args=[])
"""


def test_a_reader_that_leaves_ends_quietly_and_another_broken_pipe_is_told() -> None:
    for who, told in (("reader", ""), ("worker", "Error: Broken pipe\n")):
        begun = subprocess.Popen([sys.executable, "-c", PROGRAM, who], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert begun.stdout is not None
        assert begun.stderr is not None
        if who == "reader":
            begun.stdout.read(10)
            begun.stdout.close()
        assert begun.stderr.read() == told
        assert begun.wait() == 1
        begun.stderr.close()
        begun.stdout.close()


def test_closed_streams_and_a_folder_that_is_gone(tmp_path: Path) -> None:
    program = shutil.which("md-data", path=str(Path(sys.executable).parent))
    closed = subprocess.run(["sh", "-c", f"exec {program} splits --write={tmp_path}/lists <&- >&- 2>&-"], check=False)
    assert closed.returncode == 0
    assert len(list((tmp_path / "lists").iterdir())) == 7
    script = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec {program} splits"
    gone = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert gone.returncode == 2
    assert gone.stderr.splitlines()[-1].startswith("Error: the current folder was removed or replaced")
