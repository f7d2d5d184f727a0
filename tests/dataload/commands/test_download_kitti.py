"""md-data download kitti against a real server on this machine: continued, checked, unpacked safely; what fails is named."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result
from kitti_server import Server, zip_of
from serving import serving

from dataload.commands.kitti import LOCK, download
from dataload.kitti import archives as kitti_archives
from dataload.kitti import download as kitti_download
from dataload.kitti import unpack as kitti_unpack
from dataload.kitti.archives import chosen_archives, is_complete
from dataload.system import download as resuming
from dataload.system import side_by_side
from dataload.system.lock_files import one_process
from splits.errors import InputError
from splits.rules import facts

DATE = "2011_09_26"
DRIVE = f"{DATE}_drive_0048"
OTHER = f"{DATE}_drive_0052"
FRAMES = 3
PROGRAM = "from dataload.commands.kitti import download; download()"
CALIBRATION = ("calib_cam_to_cam.txt", "calib_imu_to_velo.txt", "calib_velo_to_cam.txt")


def drive_files(drive: str, frames: int = FRAMES, image_bytes: int = 5000) -> dict[str, bytes]:
    root = f"{DATE}/{drive}_sync"
    names = [f"{root}/image_0{camera}/data/{i:010d}.png" for camera in range(4) for i in range(frames)]
    names += [f"{root}/velodyne_points/data/{i:010d}.bin" for i in range(frames)] + [
        f"{root}/oxts/data/{i:010d}.txt" for i in range(frames)
    ]
    files = {name: name.encode() + os.urandom(image_bytes) for name in names}
    return files | {f"{root}/image_02/timestamps.txt": b"2011"}


def calibration_files() -> dict[str, bytes]:
    return {f"{DATE}/{name}": b"R: 1\n" for name in CALIBRATION}


@pytest.fixture
def files() -> dict[str, dict[str, bytes]]:
    return {f"{DATE}_calib.zip": calibration_files()} | {f"{drive}_sync.zip": drive_files(drive) for drive in (DRIVE, OTHER)}


@pytest.fixture
def server(files: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(resuming, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(kitti_download, "PAUSE_S", 0.0)
    server = Server()
    server.files = {name: zip_of(content) for name, content in files.items()}
    with serving(server):
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "kitti"


def run(server: Server, data: Path, *args: str) -> Result:
    return CliRunner().invoke(download, ["kitti", "--data_path", str(data), "--base_url", server.url, *args])


def fetch(server: Server, data: Path, *drives: str) -> Result:
    return run(server, data, "--drives", *(drives or (DRIVE, OTHER)))


def tree_of(data: Path) -> dict[str, bytes]:
    """Every file but the marker and the lock, by its name; what would be left over is among them."""
    names = (path for path in data.rglob("*") if path.is_file() and path.name not in (kitti_archives.MARKER, LOCK))
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in names}


def merged(files: dict[str, dict[str, bytes]], *names: str) -> dict[str, bytes]:
    return {path: content for name in (names or files) for path, content in files[name].items()}


def last_line(result: Result) -> str:
    return result.output.splitlines()[-1]


def test_chosen_drives_and_their_calibration_are_unpacked_and_the_zips_gone(server: Server, data: Path, files) -> None:
    result = fetch(server, data)
    assert result.exit_code == 0, result.output
    assert tree_of(data) == merged(files)
    assert f"\nall 3 archives are in {data}\n" in result.output
    assert last_line(result) == f"next: md-data jpeg --data_path {data}"
    assert {path for path, _ in server.asked} == {
        f"/raw/{DATE}_calib.zip", f"/raw/{DRIVE}/{DRIVE}_sync.zip", f"/raw/{OTHER}/{OTHER}_sync.zip"
    }  # fmt: skip


def test_what_is_there_is_not_fetched_again(server: Server, data: Path) -> None:
    assert fetch(server, data, DRIVE).exit_code == 0
    asked = len(server.asked)
    again = fetch(server, data, DRIVE)
    assert again.exit_code == 0, again.output
    assert "2 archives are there already, 0 to fetch" in again.output
    assert len(server.asked) == asked
    assert fetch(server, data).exit_code == 0
    assert len(server.asked) == asked + 1


def test_a_drive_that_has_lost_an_image_is_fetched_anew_and_keeps_what_else_it_has(server: Server, data: Path, files) -> None:
    assert fetch(server, data, DRIVE).exit_code == 0
    folder = data / DATE / f"{DRIVE}_sync"
    (folder / "image_03" / "data" / "0000000001.png").unlink()
    (folder / "image_02" / "data" / "0000000001.png").write_bytes(b"cut")
    (folder / "proj_depth").mkdir()
    (folder / "proj_depth" / "mine.png").write_bytes(b"depth")
    assert fetch(server, data, DRIVE).exit_code == 0
    wanted = merged(files, f"{DATE}_calib.zip", f"{DRIVE}_sync.zip") | {f"{DATE}/{DRIVE}_sync/proj_depth/mine.png": b"depth"}
    assert tree_of(data) == wanted


@pytest.mark.parametrize("name", ["0000000002.png", "0000000002.jpg"])
def test_empty_files_do_not_count(server: Server, data: Path, name: str) -> None:
    assert fetch(server, data, DRIVE).exit_code == 0
    image = data / DATE / f"{DRIVE}_sync" / "image_02" / "data" / "0000000002.png"
    image.unlink()
    image.with_name(name).write_bytes(b"x")
    archive = next(a for a in chosen_archives({f"{DATE}/0048"}) if a.drive)
    assert is_complete(data, archive)
    image.with_name(name).write_bytes(b"")
    assert not is_complete(data, archive)


def by_hand(data: Path, frames: int, ext: str = ".png") -> Path:
    """A drive as someone has unpacked it, without our marker."""
    for name, content in drive_files(DRIVE, frames, image_bytes=1).items():
        path = (data / name).with_suffix(ext) if name.endswith(".png") else data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return data / DATE / f"{DRIVE}_sync"


@pytest.mark.parametrize("ext", [".png", ".jpg"])
def test_a_tree_unpacked_by_hand_is_known_by_its_numbers(server: Server, data: Path, ext: str) -> None:
    folder = by_hand(data, facts()["drive_frames"][f"{DATE}/0048"], ext)
    before = tree_of(data)
    result = fetch(server, data, DRIVE)
    assert result.exit_code == 0, result.output
    assert server.asked_for(f"{DRIVE}_sync.zip") == []
    assert before.items() <= tree_of(data).items()
    shutil.rmtree(folder / "image_00")  # grey images are not read here
    shutil.rmtree(folder / "oxts")
    fetch(server, data, DRIVE)
    assert server.asked_for(f"{DRIVE}_sync.zip") == []
    (folder / "velodyne_points" / "data" / "0000000000.bin").unlink()
    fetch(server, data, DRIVE)
    assert len(server.asked_for(f"{DRIVE}_sync.zip")) == 1


def test_a_cut_connection_is_continued_in_the_same_run(server: Server, data: Path, files) -> None:
    name = f"{DRIVE}_sync.zip"
    server.cut[name] = len(server.files[name]) // 3
    result = fetch(server, data, DRIVE)
    assert result.exit_code == 0, result.output
    spans = server.asked_for(name)
    starts = [int(span.removeprefix("bytes=").removesuffix("-")) for span in spans[1:]]
    assert spans[0] is None
    assert len(starts) >= 3
    assert starts == sorted(set(starts))
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", name)


def test_a_part_of_an_earlier_run_is_continued(server: Server, data: Path, files) -> None:
    name = f"{DRIVE}_sync.zip"
    data.mkdir()
    (data / f"{name}.part").write_bytes(server.files[name][:12345])
    assert fetch(server, data, DRIVE).exit_code == 0
    assert server.asked_for(name) == ["bytes=12345-"]
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", name)


def test_zips_fetched_by_other_means_are_used(server: Server, data: Path, files) -> None:
    whole, begun = f"{DRIVE}_sync.zip", f"{OTHER}_sync.zip"
    data.mkdir()
    (data / whole).write_bytes(server.files[whole])
    (data / begun).write_bytes(server.files[begun][:5000])
    assert fetch(server, data).exit_code == 0
    assert (server.asked_for(whole), server.asked_for(begun)) == ([], ["bytes=5000-"])
    assert tree_of(data) == merged(files)


@pytest.mark.parametrize("sizes", [True, False])
def test_a_part_longer_than_the_file_is_started_anew(server: Server, data: Path, files, sizes: bool) -> None:
    name = f"{DRIVE}_sync.zip"
    server.sizes = sizes
    data.mkdir()
    (data / f"{name}.part").write_bytes(server.files[name] + b"more")
    result = fetch(server, data, DRIVE)
    assert result.exit_code == 0, result.output
    assert server.asked_for(name)[-1] is None
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", name)


def test_a_server_without_ranges_starts_anew(server: Server, data: Path, files) -> None:
    name = f"{DRIVE}_sync.zip"
    server.ranges = False
    data.mkdir()
    (data / f"{name}.part").write_bytes(b"x" * 2000)
    assert fetch(server, data, DRIVE).exit_code == 0
    assert server.asked_for(name) == ["bytes=2000-"]
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", name)


def test_a_server_that_answers_no_head_or_tells_no_size_will_do(server: Server, data: Path, files) -> None:
    server.heads = False
    dry = run(server, data, "--drives", DRIVE, "--dry_run")
    assert f"{len(server.files[f'{DRIVE}_sync.zip']) / 1e6:.1f} MB" in dry.output
    server.sizes = False
    assert "size unknown" in run(server, data, "--drives", DRIVE, "--dry_run").output
    assert fetch(server, data, DRIVE).exit_code == 0
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", f"{DRIVE}_sync.zip")


def test_an_answer_shorter_than_announced_is_tried_again_then_named_and_kept(server: Server, data: Path, files) -> None:
    name = f"{DRIVE}_sync.zip"
    server.cut[name] = 0
    data.mkdir()
    (data / f"{name}.part").write_bytes(server.files[name][:4000])
    result = fetch(server, data)
    assert result.exit_code == 1
    assert server.asked_for(name) == ["bytes=4000-"] * kitti_download.ATTEMPTS
    line = f"{server.url}/{DRIVE}/{name}: ended early after 0.0 MB (no connection, or one that was cut); repeat the command to resume"
    assert line in result.output.splitlines()
    assert last_line(result).startswith("Error: 1 of 3 archives are not there, for the reasons above; what has been fetched is kept")
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", f"{OTHER}_sync.zip") | {f"{name}.part": server.files[name][:4000]}
    server.cut = {}
    assert fetch(server, data).exit_code == 0
    assert tree_of(data) == merged(files)


def test_an_answer_that_ends_early_unnoticed_is_an_error(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.Response, "iter_content", lambda _answer, _size: iter([b"begun"]))
    with pytest.raises(requests.ConnectionError, match=r"a.part ends early"):
        list(resuming.receive(f"{server.url}/{DATE}_calib.zip", tmp_path / "a.part"))
    assert (tmp_path / "a.part").read_bytes() == b"begun"


@pytest.mark.parametrize(("status", "asked"), [(404, 0), (403, 0), (500, kitti_download.ATTEMPTS), (503, kitti_download.ATTEMPTS)])
def test_a_refused_archive_does_not_stop_the_others(server: Server, data: Path, files, status: int, asked: int) -> None:
    name = f"{DRIVE}_sync.zip"
    server.status[name] = status
    result = fetch(server, data)
    assert result.exit_code == 1
    assert f"{server.url}/{DRIVE}/{name}: the server says {status} " in result.output
    assert len(server.asked_for(name)) == asked
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", f"{OTHER}_sync.zip")


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda good: good[:-2000], "cannot be unpacked (File is not a zip file)"),
        (lambda good: good[2000:], "cannot be unpacked"),
        (lambda good: b"<html>Please log in</html>", "cannot be unpacked (File is not a zip file)"),
        (lambda good: good[:3000] + bytes(100) + good[3100:], "cannot be unpacked (Bad CRC-32 for file"),
        (lambda good: zip_of({}), "is not unpacked: it holds no files"),
    ],
)
def test_a_damaged_zip_is_removed_and_nothing_of_it_is_left(server: Server, data: Path, files, damage, said: str) -> None:
    name = f"{DRIVE}_sync.zip"
    good = server.files[name]
    server.files[name] = damage(good)
    result = fetch(server, data)
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith(f"{server.url}/{DRIVE}/{name}: ")]
    assert said in line
    assert line.endswith(", and is removed; repeat the command to fetch it again")
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", f"{OTHER}_sync.zip")
    assert not (data / DATE / f"{DRIVE}_sync").exists()
    server.files[name] = good
    assert fetch(server, data).exit_code == 0
    assert tree_of(data) == merged(files)


INSIDE = f"{DATE}/{DRIVE}_sync"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../evil", 0o100644), (f"{INSIDE}/../../../evil", 0o100644), ("/evil", 0o100644), (f"{INSIDE}/..\\evil", 0o100644),
        (f"{INSIDE}/C:evil", 0o100644), (f"{INSIDE}/link", 0o120777), (f"{INSIDE}/pipe", 0o010644), (f"{DATE}/{OTHER}_sync/a", 0o100644),
        (f"{INSIDE}/./a", 0o100644), (f"{INSIDE}//a", 0o100644), ("evil", 0o100644),
    ],
)  # fmt: skip
def test_no_entry_leaves_its_own_folder(server: Server, data: Path, files, name: str, mode: int) -> None:
    archive = f"{DRIVE}_sync.zip"
    server.files[archive] = zip_of(files[archive] | {name: b"/etc/passwd"}, mode) if mode == 0o100644 else zip_of({name: b"/etc"}, mode)
    around = sorted(data.parent.iterdir())
    result = fetch(server, data, DRIVE)
    assert result.exit_code == 1
    assert f"is not unpacked: its entry {name!r} would lie outside {INSIDE}/ or is no plain file" in result.output
    assert tree_of(data) == calibration_files()
    assert sorted(path for path in data.parent.iterdir() if path != data) == around


def test_several_are_fetched_at_once(server: Server, data: Path) -> None:
    server.hold = threading.Event()
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(run(server, data, "--drives", DRIVE, OTHER, "--jobs", "2")))
    thread.start()
    deadline = time.monotonic() + 30
    while server.active < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # for a third, which must not come
    active = server.active
    server.hold.set()
    thread.join()
    assert results[0].exit_code == 0, results[0].output
    assert active == 2


def test_a_disk_too_small_is_refused_before_anything_is_fetched(server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped = [len(content) for content in server.files.values()]
    needed = int(kitti_archives.UNPACKED_PER_ZIPPED * sum(zipped)) + sum(zipped) + kitti_download.SPARE_BYTES
    monkeypatch.setattr(kitti_download, "free_bytes", lambda _folder: needed - 1)
    for more in ((), ("--dry_run",)):
        result = run(server, data, "--drives", DRIVE, OTHER, *more)
        assert result.exit_code == 1
        assert last_line(result).startswith("Error: 3 archives take up to 0.")
        assert f"but {data} has 1.1 GB; make room, choose fewer --drives, or give another --data_path" in last_line(result)
    assert server.asked == []
    monkeypatch.setattr(kitti_download, "free_bytes", lambda _folder: needed)
    assert fetch(server, data).exit_code == 0


def test_a_zip_that_does_not_fit_unpacked_is_kept(server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kitti_unpack, "free_bytes", lambda _folder: 1000)
    result = run(server, data, "--drives", DRIVE, "--jobs", "1")
    assert result.exit_code == 1
    assert last_line(result).startswith(
        f"Error: {DRIVE}_sync.zip takes 0.1 MB unpacked, but the disk of {data / DATE} has only 0.0 MB left; "
    )
    assert last_line(result).endswith(f"what has been fetched is kept in {data}: make room and repeat the command")
    assert tree_of(data) == calibration_files() | {f"{DRIVE}_sync.zip.part": server.files[f"{DRIVE}_sync.zip"]}
    monkeypatch.undo()
    asked = len(server.asked)
    assert fetch(server, data, DRIVE).exit_code == 0
    assert len(server.asked) == asked


@pytest.mark.parametrize("raised", [kitti_download.Stopped(), MemoryError()])
def test_one_that_is_stopped_while_it_unpacks_keeps_its_archive(raised: Exception, server: Server, data: Path) -> None:
    (archive,) = (archive for archive in kitti_archives.chosen_archives({f"{DATE}/0048"}, server.url) if archive.drive)
    data.mkdir()
    part = kitti_download.part_of(data, archive)
    part.write_bytes(server.files[archive.name])
    todo = kitti_download.plan(data, [archive])

    def progress(_there_bytes: int, total_bytes: int | None) -> None:
        if total_bytes is None:  # it is unpacked
            raise raised

    with pytest.raises((kitti_download.Stopped, InputError), match=r"^$|sync\.zip\.part cannot be unpacked \(it asks for more memory"):
        kitti_download._fetch(archive, todo, progress, threading.Event())
    assert tree_of(data) == {part.name: server.files[archive.name]}


def test_a_full_disk_stops_the_others(server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(archive: kitti_archives.Archive, *_args: object) -> None:
        if archive.drive == f"{DATE}/0048":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(kitti_download, "unpack", unpack)
    monkeypatch.setattr(side_by_side, "GRACE_S", 0.0)
    name = f"{OTHER}_sync.zip"
    server.hold, server.hold_only = threading.Event(), name
    assert f"the disk of {data} is full" in last_line(fetch(server, data))
    server.hold.set()
    deadline = time.monotonic() + 30
    while server.active and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # for the rest of it, which must not be fetched
    assert (data / f"{name}.part").stat().st_size < len(server.files[name])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


def test_a_disk_that_fills_up_keeps_the_part(server: Server, small_disk: Path, files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kitti_download, "SPARE_BYTES", 0)
    monkeypatch.setattr(kitti_download, "peak_bytes", lambda *_args, **_kwargs: 0)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    result = run(server, small_disk, "--drives", DRIVE, "--jobs", "1")
    assert result.exit_code == 1
    assert f"Error: the disk of {small_disk} is full (No space left on device); what has been fetched is kept in {small_disk}" in last_line(
        result
    )
    name = f"{DRIVE}_sync.zip"
    part = (small_disk / f"{name}.part").read_bytes()
    assert 0 < len(part) < len(server.files[name])
    assert server.files[name].startswith(part)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert fetch(server, small_disk, DRIVE).exit_code == 0
    assert server.asked_for(name)[-1] == f"bytes={len(part)}-"
    assert tree_of(small_disk) == merged(files, f"{DATE}_calib.zip", name)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="sends Ctrl-C as a terminal does")
def test_interrupt_keeps_the_parts_and_says_how_to_go_on(server: Server, data: Path, files) -> None:
    call = [sys.executable, "-c", PROGRAM, "kitti", "--data_path", str(data), "--base_url", server.url, "--drives", DRIVE, OTHER]
    server.hold = threading.Event()
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 30
    while server.active < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Stopped; what has been fetched is kept; repeat the command to resume" in errors
    assert "Traceback" not in errors
    assert all(name.endswith(".zip.part") for name in tree_of(data))
    server.hold.set()
    server.hold = None
    assert subprocess.run(call, check=False, capture_output=True).returncode == 0
    assert tree_of(data) == merged(files)


def test_what_a_killed_run_was_unpacking_is_cleared_away(server: Server, data: Path, files) -> None:
    left = data / DATE / f".{DRIVE}_sync.unpacking" / f"{DRIVE}_sync" / "image_02" / "data"
    left.mkdir(parents=True)
    (left / "9999999999.png").write_bytes(b"left")
    assert fetch(server, data, DRIVE).exit_code == 0
    assert tree_of(data) == merged(files, f"{DATE}_calib.zip", f"{DRIVE}_sync.zip")


def test_two_runs_into_a_folder_do_not_mix(server: Server, data: Path) -> None:
    data.mkdir()
    results: list[Result] = []
    with one_process(data / LOCK):
        thread = threading.Thread(target=lambda: results.append(fetch(server, data, DRIVE)))
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        assert server.asked == []
    thread.join()
    assert f"waiting for another download into {data}" in results[0].output
    assert results[0].exit_code == 0


def test_a_bug_in_a_thread_keeps_its_traceback(server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise AssertionError("an invariant")

    monkeypatch.setattr(kitti_download, "unpack", broken)
    result = fetch(server, data, DRIVE)
    assert isinstance(result.exception, AssertionError)


def test_dry_run_tells_sizes_and_room_and_makes_nothing(server: Server, data: Path) -> None:
    result = run(server, data, "--drives", f"{DRIVE},{OTHER}", "--dry_run")
    assert result.exit_code == 0, result.output
    total = sum(map(len, server.files.values()))
    assert f"0 archives are there already, 3 to fetch: {total / 1e6:.1f} MB" in result.output
    assert f"they take up to {(int(1.3 * total) + total) / 1e6:.1f} MB of the disk of {data}" in result.output
    assert server.asked == []
    assert not data.exists()
    server.status[f"{DRIVE}_sync.zip"] = 404
    assert run(server, data, "--drives", DRIVE, "--dry_run").exit_code == 1


def test_mistakes_are_answered_with_what_was_meant(server: Server, data: Path, tmp_path: Path) -> None:
    for args, said in [
        (
            ["--drives", "2011_09_26_drive_0084_snyc"],
            "did you mean 2011_09_26_drive_0084? give 2011_09_26_drive_0001, or 2011_09_26 for all",
        ),
        (["--split", "eigen_zuo"], "did you mean 'eigen_zhou'?"),
        (["--drives", ""], "no drives are named"),
        (["--drives", ","], "no drives are named; leave out --drives and --split for all"),
        (["--jobs", "0"], "0 is not in the range 1<=x<=16"),
        (["--base_url", "example.org/kitti"], "base_url: 'example.org/kitti' is no address; give one like https://"),
    ]:
        result = CliRunner().invoke(download, ["kitti", "--data_path", str(data), *args])
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.output.split()), result.output
    (tmp_path / "file").touch()
    wrong = run(server, tmp_path / "file", "--drives", DRIVE)
    assert (wrong.exit_code, wrong.output) == (
        1,
        f"Error: cannot make folder {tmp_path / 'file'} (File exists); give another --data_path\n",
    )
    typo = CliRunner().invoke(download, ["kiti"])
    assert (typo.exit_code, "did you mean 'kitti'?" in typo.output) == (2, True)


def test_offline_is_one_line(data: Path) -> None:
    closed = Server()
    closed.server_close()
    result = run(closed, data, "--drives", DRIVE)
    assert result.exit_code == 1
    host = f"127.0.0.1:{closed.server_port}"
    said = "no connection, or one that was cut; try again online or later, or give a mirror's --base_url"
    assert result.output == f"Error: {host}: {said}\n"


def test_the_commands_import_neither_torch_nor_numpy_before_they_work() -> None:
    program = "import sys, dataload.commands.kitti; print(*sorted({'torch', 'numpy', 'PIL', 'requests', 'tqdm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"
    kitti = "import sys; from dataload.commands.kitti import download; download(['kitti', '--help'], standalone_mode=False); "
    shown = subprocess.run([sys.executable, "-c", kitti + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("False\n")
    assert "--dry_run" in shown.stdout


def test_the_benchmarks_archives_are_unpacked_where_the_datasets_look(server: Server, data: Path) -> None:
    """Annotated depth and the selected images in the root; odometry without the folder around it."""
    held = {
        "data_depth_annotated.zip": {f"val/{DRIVE}_sync/proj_depth/groundtruth/image_02/0000000005.png": b"a"},
        "data_depth_selection.zip": {"depth_selection/test_depth_prediction_anonymous/image/0000000000.png": b"b"},
        "data_odometry_calib.zip": {"dataset/sequences/09/calib.txt": b"c"},
        "data_odometry_poses.zip": {"dataset/poses/09.txt": b"d"},
        "data_odometry_color.zip": {"dataset/sequences/09/image_2/000000.png": b"e"},
    }
    server.files = {name: zip_of(content) for name, content in held.items()}
    result = run(server, data, *(word for part in ("annotated", "selection", "odometry") for word in ("--part", part)))
    assert result.exit_code == 0, result.output
    unpacked = {name.removeprefix("dataset/"): content for files in held.values() for name, content in files.items()}
    assert {name: content for name, content in tree_of(data).items() if not name.startswith(".")} == unpacked
    assert {path for path, _ in server.asked} == {f"/{name}" for name in held}  # one level above KITTI raw
    asked = len(server.asked)
    assert (
        "5 archives are there already, 0 to fetch"
        in run(server, data, "--part", "annotated", "--part", "selection", "--part", "odometry").output
    )
    assert len(server.asked) == asked
    (data / "poses" / "09.txt").unlink()
    assert run(server, data, "--part", "odometry").exit_code == 0
    assert (data / "poses" / "09.txt").read_bytes() == b"d"


def test_a_benchmarks_archive_stays_below_the_folder(server: Server, data: Path) -> None:
    server.files = {"data_depth_selection.zip": zip_of({"../outside.png": b"x"})}
    result = run(server, data, "--part", "selection")
    assert result.exit_code == 1
    assert "'../outside.png' would lie outside the folder" in result.output
    assert not (data.parent / "outside.png").exists()
