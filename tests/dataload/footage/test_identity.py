"""Recordings known by what they hold: copies and moved ones, cut ones, and others of the same name and size."""

from pathlib import Path

import numpy as np
import pytest

from dataload.footage.identity import GROWN, OTHER, PLACE_BYTES, PLACES, SAME, Fingerprint, compare, describe, identify


def write(path: Path, num_bytes: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(seed).integers(0, 256, num_bytes, np.uint8).tobytes())
    return path


@pytest.mark.parametrize("num_bytes", [0, 1, 100, PLACE_BYTES, PLACE_BYTES + 1, PLACES * PLACE_BYTES, 5_000_000])
def test_a_copy_is_the_same_and_a_cut_one_is_its_beginning(num_bytes: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "a" / "trip.bag", num_bytes)
    known = identify(whole, [whole])
    copy = tmp_path / "b" / "renamed.bag"
    copy.parent.mkdir()
    copy.write_bytes(whole.read_bytes())
    assert compare(known, [copy]) == SAME
    assert describe(known) == str(whole)
    with copy.open("ab") as file:
        file.write(b"more")
    assert compare(known, [copy]) == GROWN
    if num_bytes:
        copy.write_bytes(whole.read_bytes()[: num_bytes // 2])
        assert compare(known, [copy]) == OTHER
        assert compare(known, [write(copy, num_bytes, seed=1)]) == OTHER


@pytest.mark.parametrize("place", [0, 2_500_000, 4_999_999])
def test_a_copy_with_a_hole_is_another(place: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "trip.bag", 5_000_000)
    known = identify(whole, [whole])
    content = bytearray(whole.read_bytes())
    content[max(0, place - 400_000) : place + 400_000] = bytes(min(place, 400_000) + min(400_000, len(content) - place))
    whole.write_bytes(content)
    assert compare(known, [whole]) == OTHER


def test_little_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.mcap"
    with path.open("wb") as file:
        file.truncate(100 * 2**30)
    assert Fingerprint.of(path).bytes == 100 * 2**30
    assert Fingerprint.of(path, 0) == Fingerprint.of(write(tmp_path / "empty", 0))


def test_of_several_files_each_counts(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"rec_{number}.db3", 1000, seed=number) for number in range(3)]
    known = identify(tmp_path, parts[:2])
    assert compare(known, parts[:2]) == SAME
    assert compare(known, parts) == GROWN
    assert compare(known, parts[:1]) == OTHER
    assert compare(known, parts[1:]) == OTHER


@pytest.mark.parametrize("known", [None, {}, "trip.bag", {"files": []}, {"files": [{"bytes": 3}]}, {"files": [3]}, {"files": None}])
def test_what_does_not_say_of_what_it_was_made_is_of_another(known: object, tmp_path: Path) -> None:
    assert compare(known, [write(tmp_path / "trip.bag", 10)]) == OTHER
    assert describe(known) == "a recording that it does not name"
