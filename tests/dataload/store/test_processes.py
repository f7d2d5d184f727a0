"""Frame stores and the world around them: several processes, kill -9, Ctrl-C, full disks, disks that cannot be written."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stores import (
    Build,
    NotingDecoder,
    build,
    config_of,
    file_bytes_limit,
    file_in,
    fill_up,
    is_whole,
    key_of,
    mounted,
    opened,
    read_only,
    table_of,
    there,
    wait_for,
)

from dataload.config import DataConfig
from dataload.store import build as store_build
from dataload.store.build import StoreError, StorePlace, ensure_store
from dataload.store.file import Layout
from dataload.store.reading import fingerprints

__all__ = ["mounted"]
# Frames after which a build stands still until the test lets it go on.
STOP_AT = 6


@pytest.fixture(scope="module")
def root(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)


@pytest.fixture
def config(root: Path, tmp_path: Path) -> DataConfig:
    """A run of 24 frames."""
    return config_of(root, tmp_path / "stores")


@pytest.fixture
def folder(config: DataConfig) -> Path:
    assert config.frame_store_dir is not None
    return config.frame_store_dir


@pytest.fixture
def start(root: Path, folder: Path, tmp_path: Path) -> Iterator[Callable[..., Build]]:
    """Starts builds in processes of their own."""
    begun: list[Build] = []

    def build_in_process(name: str = "a", **options: object) -> Build:
        begun.append(Build(root, folder, tmp_path, name=name, **options))
        return begun[-1]

    yield build_in_process
    for process in begun:
        process.kill()


def first_and_second(a: Build, b: Build) -> tuple[Build, Build]:
    """Which of two processes builds, and which says that it waits."""
    wait_for(lambda: "waiting" in a.said + b.said)
    return (b, a) if "waiting" in a.said else (a, b)


def test_two_processes_that_start_at_once_build_one_store(start, config, folder, tmp_path) -> None:
    builder, waiter = first_and_second(*(start(name, stop_at=STOP_AT, gate=tmp_path / "gate") for name in "ab"))
    name = key_of(config).file_name
    assert f"Frame store  another process is making {folder / name}; waiting" in waiter.said
    assert "waiting" not in builder.said
    place = StorePlace.of(folder, key_of(config).file_name)
    wait_for(lambda: len(builder.decoded) >= STOP_AT)
    inode = place.partial.stat().st_ino
    (tmp_path / "gate").touch()
    assert (builder.end(), waiter.end()) == (0, 0)
    assert sorted(builder.decoded) == sorted(key_of(config).names)
    assert waiter.decoded == []
    assert place.whole.stat().st_ino == inode
    for process in (builder, waiter):
        assert f"disk: 24 frames, 0.5 MB, in {place.whole} (asked for)" in process.said
    assert is_whole(place.whole, config)
    assert not place.partial.exists()


def test_kill_9_in_mid_build_loses_nothing_that_is_built(start, config, folder, tmp_path) -> None:
    killed = start(stop_at=STOP_AT, gate=tmp_path / "gate")
    wait_for(lambda: len(killed.decoded) >= STOP_AT)
    killed.process.send_signal(signal.SIGKILL)
    assert killed.end() == -signal.SIGKILL
    kept = there(file_in(folder, ".partial"))
    # A frame that was being written is all that may be lost.
    assert kept <= set(killed.decoded)
    assert len(kept) >= STOP_AT - 1
    store, names = build(config)
    store.close()
    assert sorted(names) == sorted(set(key_of(config).names) - kept)
    other = config_of(config.data_path, tmp_path / "undisturbed")
    build(other)[0].close()
    assert file_in(folder).read_bytes() == file_in(tmp_path / "undisturbed").read_bytes()
    assert not list(folder.glob("*.partial"))


def test_a_process_that_waits_takes_over_from_one_that_is_killed(start, config, folder, tmp_path) -> None:
    builder, waiter = first_and_second(*(start(name, stop_at=STOP_AT, gate=tmp_path / f"gate_{name}") for name in "ab"))
    wait_for(lambda: len(builder.decoded) >= STOP_AT)
    builder.process.send_signal(signal.SIGKILL)
    (tmp_path / f"gate_{waiter.log.stem}").touch()
    assert waiter.end() == 0
    assert set(waiter.decoded) | set(builder.decoded) == set(key_of(config).names)
    assert len(waiter.decoded) <= 24 - STOP_AT + 1
    assert "of 24 frames are there already" in waiter.said
    assert is_whole(file_in(folder), config)


def test_ctrl_c_ends_at_once_with_the_frames_kept(start, config, folder) -> None:
    slow, waiter = first_and_second(*(start(name, delay_s=1) for name in "ab"))
    begun = time.monotonic()
    waiter.process.send_signal(signal.SIGINT)
    assert waiter.end() == -signal.SIGINT
    assert time.monotonic() - begun < 3
    wait_for(lambda: len(slow.decoded) >= 2)
    begun = time.monotonic()
    slow.process.send_signal(signal.SIGINT)
    assert slow.end() == -signal.SIGINT
    assert time.monotonic() - begun < 4
    assert len(slow.decoded) <= 16, "the rest would have taken no longer"
    assert "frames, which are kept for the next start" in slow.said
    kept = there(file_in(folder, ".partial"))
    assert kept == set(slow.decoded)
    store, names = build(config)
    store.close()
    assert sorted(names) == sorted(set(key_of(config).names) - kept)


def test_a_file_that_may_not_grow_is_one_clear_line_and_the_build_continues(start, config, folder, tmp_path) -> None:
    begun = start("begun", stop_at=STOP_AT, gate=tmp_path / "gate")
    wait_for(lambda: len(begun.decoded) >= STOP_AT)
    begun.kill()
    key = key_of(config)
    limit = Layout.of(key, len(key.to_json())).frames + 10 * key.frame_bytes + 100
    refused = start("refused", file_bytes=limit)
    assert refused.end() == 1
    (line,) = [line for line in refused.said.splitlines() if line.startswith("StoreError")]
    place = StorePlace.of(folder, key.file_name)
    assert (
        f"no room left while making {place.whole} (File too large); what is done is kept (md-data store remove drops it). It takes 0."
        in line
    )
    assert "make room and start again, or give another --frame_store_dir, or --frame_store none" in line
    assert "Traceback" not in refused.said
    assert there(place.partial) == set(key.names[:10])
    auto = start("auto", file_bytes=limit, store="auto")
    assert auto.end() == 0
    assert auto.said.splitlines()[-1] == "without"
    assert "WARNING Frame store  none: no room left while making" in auto.said
    store, names = build(config)
    store.close()
    assert set(names) == set(key.names[10:])
    assert is_whole(place.whole, config)


def test_a_file_that_may_not_even_be_begun_is_one_clear_line(config) -> None:
    with file_bytes_limit(100_000), pytest.raises(StoreError, match=r"^no room left while making .* \(File too large\); "):
        build(config)


def test_how_much_is_to_be_freed_is_said_of_a_file_that_is_not_even_begun(config) -> None:
    with file_bytes_limit(100_000), pytest.raises(StoreError, match=r"It takes 0\.[45] MB more"):
        build(config)


@pytest.mark.parametrize("store", ["disk", "auto"])
def test_a_lock_that_cannot_be_had_is_one_clear_line(config, folder, store) -> None:
    # Stands for another user's lock file and for network disks without locks, which root or this machine cannot show.
    StorePlace.of(folder, key_of(config).file_name).lock.mkdir(parents=True)
    other = config_of(config.data_path, folder, frame_store=store)
    if store == "auto":
        assert opened(other) is None
    else:
        with pytest.raises(StoreError, match="--frame_store none"):
            opened(other)


def test_a_disk_that_fills_up_in_mid_build(root, mounted, monkeypatch) -> None:
    disk = mounted(2**20)
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 0)
    config = config_of(root, disk)
    key, table = key_of(config), table_of(config)
    filler = disk / "filler"

    class FillingDecoder(NotingDecoder):
        """Another process, as it were, which takes the rest of the disk after eight frames."""

        def make(self, table, rows, keep, bad=None):
            for row in rows:
                if len(self.names) == 8:
                    fill_up(filler)
                keep(row, self.frame(table.path(row)))
                yield row

    place = StorePlace.of(disk, key.file_name)
    decoder = FillingDecoder(config)
    with pytest.raises(StoreError) as error:
        ensure_store(disk, key, fingerprints(key), lambda rows, keep: decoder.make(table, rows, keep))
    assert f"no room left while making {place.whole} (No space left on device); what is done is kept" in str(error.value)
    assert "It takes 0.3 MB more and is to leave 0.0 MB free: make room and start again" in str(error.value)
    kept = there(place.partial)
    assert kept == set(key.names[:8])
    # Now the forecast says it at once; auto goes on without.
    with pytest.raises(
        StoreError,
        match=r"the frame store of 24 frames takes 0\.3 MB and is to leave 0\.0 MB free, but the disk of .* has 0\.0 MB; make room",
    ):
        build(config)
    assert opened(config_of(root, disk, frame_store="auto")) is None
    filler.unlink()
    store, names = build(config)
    store.close()
    assert set(names) == set(key.names) - kept
    assert is_whole(place.whole, config)


def test_auto_goes_on_without_a_store_when_the_disk_fills_up(root, mounted, monkeypatch, caplog) -> None:
    caplog.set_level("INFO", "md")
    disk = mounted(2**20)
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 0)
    config = config_of(root, disk, frame_store="auto")

    class FillingDecoder(NotingDecoder):
        def make(self, table, rows, keep, bad=None):
            fill_up(disk / "filler")
            yield from super().make(table, rows, keep, bad)

    assert opened(config, FillingDecoder(config)) is None
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.getMessage().startswith("Frame store  none: no room left while making")
    with pytest.raises(StoreError, match="make room"):
        opened(config_of(root, disk), FillingDecoder(config))


def test_a_disk_that_cannot_be_written(root, mounted, caplog) -> None:
    caplog.set_level("INFO", "md")
    disk = mounted(2**20)
    read_only(disk)
    with pytest.raises(StoreError, match=rf"^frame_store_dir: folder {disk} is not writable; give another --frame_store_dir, or"):
        opened(config_of(root, disk))
    with pytest.raises(StoreError, match=rf"^frame_store_dir: cannot make folder {disk}/below \(Read-only file system\); give another"):
        opened(config_of(root, disk / "below"))
    assert opened(config_of(root, disk, frame_store="auto")) is None
    assert "Frame store  none: " in caplog.text


@pytest.mark.parametrize("store", ["disk", "auto"])
def test_a_whole_store_on_a_disk_that_cannot_be_written_is_used(root, mounted, monkeypatch, store) -> None:
    disk = mounted(2**20)
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 0)
    config = config_of(root, disk, frame_store=store)
    build(config)[0].close()
    read_only(disk)
    decoder = NotingDecoder(config)
    found = opened(config, decoder)
    assert found is not None
    found.close()
    assert decoder.names == []
    assert found.file.path == file_in(disk)


def test_no_file_is_left_open(root, folder, config) -> None:
    build(config)[0].close()
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        build(config)[0].close()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
