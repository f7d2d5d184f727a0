"""Making a frame store: once, taken up again where it was left, anew only where need be, and never fed when it does not fit."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stores import build, build_part, config_of, file_in, flip_bit, frame_offset, is_whole, key_of, table_of, there

from dataload.config import DataConfig
from dataload.pipeline.decoders import TorchDecoder
from dataload.store import build as store_build
from dataload.store.build import Missing, StoreError, StorePlace, ensure_store, find_missing, room_bytes
from dataload.store.file import PREFIX, VERSION, Layout, StoreFile, required_bytes
from dataload.store.reading import fingerprint, fingerprints
from dataload.system.disk import gigabytes
from splits.errors import InputError

FRAMES = 12


@pytest.fixture
def config(kitti_tree: Callable[..., Path], tmp_path: Path) -> DataConfig:
    """A run of 12 frames over a tree of its own, so that its files may be changed."""
    return config_of(kitti_tree(), tmp_path / "stores")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stores"


def built(config: DataConfig) -> list[str]:
    """What was decoded to have the store of a config, which is whole afterwards and opens again at once."""
    store, names = build(config)
    store.close()
    assert is_whole(store.path, config)
    again, none = build(config)
    again.close()
    assert none == []
    return names


def test_every_frame_is_decoded_once_and_none_at_the_next_start(config, folder) -> None:
    names = built(config)
    assert sorted(names) == sorted(key_of(config).names)
    assert len(names) == len(set(names)) == FRAMES
    written = file_in(folder).stat()
    built(config)
    assert (file_in(folder).stat().st_ino, file_in(folder).stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_nothing_of_the_build_is_left_but_the_lock(config, folder) -> None:
    build(config)[0].close()
    place = StorePlace.of(folder, key_of(config).file_name)
    assert place.whole.is_file()
    assert set(folder.iterdir()) <= {place.whole, place.lock}
    assert not place.lock.exists() or place.lock.stat().st_size == 0


def test_the_file_bears_its_name_only_when_it_is_whole(config, folder) -> None:
    key, table, decoder = key_of(config), table_of(config), TorchDecoder(config)
    place = StorePlace.of(folder, key.file_name)
    seen = []

    def make(rows, keep):
        for row in decoder.make(table, rows, keep):
            seen.append((place.whole.exists(), place.partial.stat().st_ino))
            yield row

    ensure_store(folder, key, fingerprints(key), make).close()
    assert len(seen) == FRAMES
    # The very file that was written takes the name: there is no moment in which half of it bears it.
    assert set(seen) == {(False, place.whole.stat().st_ino)}
    assert not place.partial.exists()


def test_a_build_that_is_broken_off_is_continued(config, folder, caplog) -> None:
    caplog.set_level("INFO", "md")
    kept = build_part(config, 5)
    assert "stopped with 5 of 12 frames, which are kept for the next start" in caplog.text
    assert there(file_in(folder, ".partial")) == set(kept)
    assert not list(folder.glob("*.frames"))
    assert set(built(config)) == set(key_of(config).names) - set(kept)
    assert "5 of 12 frames are there already" in caplog.text
    undisturbed = config_of(config.data_path, folder.parent / "other")
    built(undisturbed)
    assert file_in(folder).read_bytes() == file_in(folder.parent / "other").read_bytes()


def test_a_frame_that_the_power_cut_off_is_made_anew_alone(config, folder) -> None:
    build_part(config, 5)
    partial = file_in(folder, ".partial")
    with partial.open("r+b") as file:
        # The record came to the disk, the frame did not.
        file.seek(frame_offset(partial, 2))
        file.write(bytes(64 * 96 * 3))
    names = key_of(config).names
    assert set(built(config)) == {names[2], *names[5:]}


def test_a_source_that_changes_in_mid_build_is_decoded_anew(config) -> None:
    names = key_of(config).names
    build_part(config, 5)
    change(config.data_path / names[1])
    assert set(built(config)) == {names[1], *names[5:]}


@pytest.mark.parametrize("rest", ["garbage", "another key", "cut off", "other header", "nothing"])
def test_a_partial_file_of_no_use_is_replaced(config, folder, rest) -> None:
    build_part(config, 5)
    partial = file_in(folder, ".partial")
    if rest == "another key":
        other = StoreFile.create(partial, key_of(config)._replace(made_by="another"))
        for row, name in enumerate(other.key.names):
            other.write(row, np.zeros((64, 96, 3), np.uint8), fingerprint(config.data_path / name))
        other.close()
    elif rest == "cut off":
        os.truncate(partial, partial.stat().st_size - 1)
    elif rest == "other header":
        flip_bit(partial, PREFIX.size + 5)
    else:
        partial.write_bytes(b"" if rest == "nothing" else b"garbage" * 100_000)
    assert len(built(config)) == FRAMES
    assert not partial.exists()


def reversed_store(path: Path, config: DataConfig) -> None:
    key = key_of(config)
    StoreFile.create(path, key._replace(names=list(key.names)[::-1])).close()


FAULTS = {
    "empty": (lambda path, config: path.write_bytes(b""), "is no frame store"),
    "garbage": (lambda path, config: path.write_bytes(b"\x89PNG" * 999), "is no frame store"),
    "version": (lambda path, config: flip_bit(path, 8, 1), f"is of version {VERSION ^ 2}, not {VERSION}"),
    "header": (lambda path, config: flip_bit(path, PREFIX.size + 40), "has a damaged header"),
    "short": (lambda path, config: os.truncate(path, path.stat().st_size - 1000), "is cut off: "),
    "long": (lambda path, config: os.truncate(path, path.stat().st_size + 1), "is longer than it should be"),
    "key": (reversed_store, "holds other frames than its name says"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_of_no_use_is_made_anew_with_the_reason(config, folder, caplog, fault) -> None:
    build(config)[0].close()
    path = file_in(folder)
    damage, reason = FAULTS[fault]
    damage(path, config)
    assert len(built(config)) == FRAMES
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{path} {reason}" in record.getMessage()
    assert record.getMessage().endswith("; frames that do not fit are made again")


def change(path: Path) -> None:
    """Other pixels under the same name."""
    with Image.open(path) as image:
        other = np.flip(np.array(image), 0)
    before = path.stat().st_mtime_ns
    Image.fromarray(other).save(path, quality=92)
    if path.stat().st_mtime_ns == before:
        os.utime(path, ns=(before + 1, before + 1))


@pytest.mark.parametrize("how", ["pixels", "time", "pixels, not time"])
def test_a_changed_source_is_found_and_decoded_alone(config, folder, caplog, how) -> None:
    build(config)[0].close()
    name = key_of(config).names[7]
    source = config.data_path / name
    before = source.stat()
    if "pixels" in how:
        change(source)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if "not time" in how else 1)))
    assert (source.stat().st_size != before.st_size) == ("pixels" in how), "the case needs another size"
    assert built(config) == [name]
    assert f"{file_in(folder)} has 1 of 12 frames of files that have changed since, {name} first" in caplog.text


def test_frames_taken_over_from_an_old_store_are_checked(config, folder) -> None:
    build(config)[0].close()
    names, path = key_of(config).names, file_in(folder)
    flip_bit(path, frame_offset(path, 3) + 1000)
    os.utime(config.data_path / names[7], ns=(1, 1))
    assert set(built(config)) == {names[3], names[7]}


def test_flipped_records_have_their_frames_made_anew(config, folder) -> None:
    build(config)[0].close()
    names, path = key_of(config).names, file_in(folder)
    records = Layout.of(key_of(config), len(key_of(config).to_json())).records
    flip_bit(path, records + 2 * 24)  # the size of the third file
    flip_bit(path, records + 4 * 24 + 9, 3)  # the time of the fifth
    assert set(built(config)) == {names[2], names[4]}


@pytest.mark.parametrize("built_before", [False, True])
def test_a_missing_source_is_named(config, folder, built_before) -> None:
    if built_before:
        build(config)[0].close()
    source = config.data_path / key_of(config).names[4]
    data = source.read_bytes()
    source.unlink()
    with pytest.raises(InputError, match=rf"cannot read {source} \(No such file or directory\); restore the file"):
        build(config)
    source.write_bytes(data)
    assert source.relative_to(config.data_path).as_posix() in built(config)


def test_a_damaged_source_is_named_and_the_rest_is_kept(config, folder) -> None:
    names = key_of(config).names
    source = config.data_path / names[-1]
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=rf"{source} is a damaged image"):
        build(config)
    assert there(file_in(folder, ".partial")) == set(names[:-1])
    source.write_bytes(data)
    assert built(config) == [names[-1]]


@pytest.mark.parametrize("gone", [False, True])
def test_a_build_that_leaves_a_frame_out_is_not_used(config, folder, gone) -> None:
    table, decoder = table_of(config), TorchDecoder(config)
    if gone:
        table.path(3).unlink()
    make = partial(TorchDecoder.make, decoder, table)
    with pytest.raises(
        StoreError,
        match=r"1 of 12 frames of files that have changed since, .* as soon as it was made; the disk may be failing: give",
    ):
        ensure_store(folder, key_of(config), fingerprints(key_of(config)), lambda rows, keep: make([row for row in rows if row != 3], keep))


def test_too_little_room_is_forecast_before_anything_is_written(config, folder) -> None:
    # More than any disk has: 10,000 frames of a gigapixel.
    key = key_of(config)._replace(size_px=(2**15, 2**15), names=[f"{number}.jpg" for number in range(10_000)])
    with pytest.raises(StoreError) as error:
        ensure_store(folder, key, fingerprints(key), lambda rows, keep: pytest.fail("begun all the same"))
    needed, folder_text = re.escape(gigabytes(required_bytes(key))), re.escape(str(folder))
    pattern = rf"the frame store of 10000 frames takes {needed} and .* 1\.1 GB free, but .* {folder_text} has \d+\.\d [GM]B; .*, "
    assert re.fullmatch(pattern + r"give another --frame_store_dir, or --frame_store none", str(error.value))
    assert all(path.suffix == ".lock" for path in folder.iterdir())


def test_room_is_asked_for_what_is_missing_alone(config, folder, monkeypatch) -> None:
    key = key_of(config)
    assert find_missing(folder, key, fingerprints(key)) == Missing(12, required_bytes(key))
    build_part(config, 6)
    frames, missing, _ = find_missing(folder, key, fingerprints(key))
    assert frames == 6
    assert 6 * key.frame_bytes <= missing <= 6 * key.frame_bytes + 3 * 4096
    assert room_bytes(folder) > missing
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 2**60)
    assert room_bytes(folder) == 0
    with pytest.raises(StoreError, match=r"of 12 frames takes 0\.1 MB"):
        build(config)
    monkeypatch.undo()
    build(config)[0].close()
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 2**60)
    assert find_missing(folder, key, fingerprints(key)) == Missing(0, 0)
    assert build(config)[1] == []


@pytest.mark.parametrize("kind", ["version", "changed"])
def test_room_is_forecast_for_a_store_that_is_made_anew(config, folder, monkeypatch, kind) -> None:
    build(config)[0].close()
    if kind == "version":
        flip_bit(file_in(folder), 8, 1)
    else:
        os.utime(config.data_path / key_of(config).names[0], ns=(1, 1))
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 2**60)
    with pytest.raises(StoreError, match="make room"):
        build(config)


def test_a_folder_without_write_permission_is_refused_but_its_whole_store_used(config, folder) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write anywhere; a disk that cannot be written is tested with the processes")
    with pytest.raises(StoreError, match=r"^frame_store_dir: folder .* is not writable; give another --frame_store_dir, or"):
        build(config)
    folder.chmod(0o700)
    build(config)[0].close()
    folder.chmod(0o500)
    store, names = build(config)
    store.close()
    folder.chmod(0o700)
    assert names == []
