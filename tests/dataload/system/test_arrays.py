"""numpy's files: the same arrays as numpy reads, and nothing that a header or an archive only claims."""

import os
import struct
import zipfile
from pathlib import Path

import hostile_readers
import numpy as np
import pytest
from hostile import read_apart
from hostile_files import npy_of, npy_of_header, zip_of, zip_of_zeros

from dataload.frames.depth_file import read_depth_values
from dataload.system.arrays import open_archive, open_array, read_array
from splits.errors import InputError
from splits.limits import ARRAY_BYTES

WHAT, REMEDY = "an array", "write it again"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "array",
    [
        RNG.random((3, 4, 5)), RNG.random((3, 4)).astype(np.float16), np.arange(12, dtype=">u2").reshape(3, 4), np.array(["a b", "größer"]),
        np.asfortranarray(RNG.random((3, 4))), np.zeros((0, 4), np.float32), np.float64(3.0), np.array([True, False]),
    ],
)  # fmt: skip
def test_arrays_are_numpys(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", first=array, second=RNG.random(3))
    np.savez_compressed(tmp_path / "b.npz", first=array)
    with open_archive(tmp_path / "a.npz", WHAT, REMEDY) as stored, open_archive(tmp_path / "b.npz", WHAT, REMEDY) as packed:
        found = [read_array(tmp_path / "a.npy", WHAT, REMEDY), stored["first"], packed["first"], stored.arrays()[0]]
        assert (stored.names, packed.names) == (["first", "second"], ["first"])
    opened = open_array(tmp_path / "a.npy", WHAT, REMEDY)
    for each in [*found, opened[:] if array.shape else opened]:
        np.testing.assert_array_equal(each, array)
        assert (each.dtype, each.shape) == (np.asarray(array).dtype, np.shape(array))


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"
NPY = {
    "claims": npy_of((4, 10**9, 10**9), data=b"\0" * 64),
    "one more": npy_of((5,), data=b"\0" * 16),
    "negative": npy_of_header(HEADER.replace(b"(4,)", b"(-4,)")),
    "objects": npy_of((1,), "|O", b"N."),
    "fields": npy_of_header(HEADER.replace(b"'<f4'", b"[('a', '<f4'), ('b', '<i2')]")),
    "nothing each": npy_of((10**15,), "|S0"),
    "large each": npy_of((1,), "|S2000000000"),
    "dates": npy_of((1,), "<M8[s]", b"\0" * 8),
    "long header": npy_of_header(HEADER + b" " * 20_000 + b"\n", 2),
    "endless header": npy_of_header(HEADER, 2, 2**32 - 1),
    "nested": npy_of_header(b"(" * 5000 + b"\n"),
    "nested more": npy_of_header(b"{'a': " * 1500 + b"\n"),
    "escapes": npy_of_header(b"{'descr': '\\d', 'fortran_order': False, 'shape': (4,)}\n"),
    "token": npy_of_header(b"{'descr': (<f8', 'fortran_order': False, 'shape': (4, 4, 4), }\n"),
    "number": npy_of_header(HEADER.replace(b"4,", b"9" * 5000 + b",")),
    "version": npy_of_header(HEADER, 9),
    "start alone": b"\x93NUMPY",
    "no header": b"\x93NUMPY\1\0\0\0",
    "empty": b"",
    "zip": b"PK\3\4" + b"x" * 60,
    "pickle": b"\x80\4cos\nsystem\n",
}


def test_what_is_no_array_is_refused_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, data in NPY.items():
        (tmp_path / "files" / f"{name}.npy").write_bytes(data)
    for reader in (read_depth_values, hostile_readers.read_plainly, hostile_readers.read_in_parts):
        said = read_apart(reader, tmp_path / "files")
        assert set(said) == {f"{name}.npy" for name in NPY}
        assert all(name in text for name, text in said.items()), said


def _entries_without_end() -> bytes:
    """A zip whose list of entries is said to be as long as the file."""
    packed = zip_of({"a.npy": npy_of((4,), data=b"\0" * 16)})
    entry = packed[packed.index(b"PK\1\2") : packed.index(b"PK\5\6")]
    entries = entry * (40 * 2**20 // len(entry))
    start = packed[: packed.index(b"PK\1\2")]
    return start + entries + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 65535, 65535, len(entries), len(start), 0)


NPZ = {
    "gigabytes": lambda: zip_of_zeros(["values"], 6 * 2**30, (6 * 2**28,), "<f4"),
    "of many": lambda: zip_of_zeros([f"a{number}" for number in range(40)], 2**28, (2**26,), "<f4"),
    "claims": lambda: zip_of({"a.npy": npy_of((10**9, 10**9))}),
    "no arrays": lambda: zip_of({"a.txt": b"1", "b": b"2"}),
    "objects": lambda: zip_of({"a.npy": npy_of((1,), "|O", b"N.")}),
    "lzma": lambda: zip_of({"a.npy": npy_of((4,), data=b"\0" * 16)}, zipfile.ZIP_LZMA),
    "bzip2": lambda: zip_of({"a.npy": npy_of((4,), data=b"\0" * 16)}, zipfile.ZIP_BZIP2),
    "entries": _entries_without_end,
    "entry names": lambda: zip_of({"x" * 60_000 + ".npy": b""}),
    "cut": lambda: zip_of({"a.npy": npy_of((4,), data=b"\0" * 16)})[:-30],
    "start": lambda: b"PK\3\4-",
}


@pytest.mark.slow
def test_what_is_no_archive_is_refused_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, make in NPZ.items():
        (tmp_path / "files" / f"{name}.npz").write_bytes(make())
    for reader in (hostile_readers.read_disps, hostile_readers.read_truth):
        said = read_apart(reader, tmp_path / "files")
        assert set(said) == {f"{name}.npz" for name in NPZ}
        assert all(name in text for name, text in said.items()), said
        assert "MD_MAX_UNPACKED_BYTES" in said["gigabytes.npz"], said
        assert "MD_MAX_UNPACKED_BYTES" in said["of many.npz"], said


def test_an_array_may_be_as_large_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ARRAY_BYTES.variable, "1000")
    array = RNG.random((20, 20))
    np.savez(tmp_path / "stored.npz", array)
    np.savez_compressed(tmp_path / "packed.npz", np.zeros((20, 20)))
    np.save(tmp_path / "a.npy", array)
    with open_archive(tmp_path / "stored.npz", WHAT, REMEDY) as archive:
        np.testing.assert_array_equal(archive["arr_0"], array)
    with (
        pytest.raises(InputError, match=r"an array, unpacked, of 3,328 bytes is not read, .* set MD_MAX_ARRAY_BYTES"),
        open_archive(tmp_path / "packed.npz", WHAT, REMEDY) as archive,
    ):
        archive["arr_0"]
    opened = open_array(tmp_path / "a.npy", WHAT, REMEDY)
    np.testing.assert_array_equal(opened[3:7], array[3:7])
    with pytest.raises(InputError, match=r"a\.npy: an array, unpacked, of 3,200 bytes is not read"):
        opened[:]


@pytest.mark.parametrize("change", ["shorter", "other", "gone"])
def test_an_array_that_changes_while_it_is_read_is_one_line(change: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, RNG.random((200, 20, 20)))
    opened = open_array(path, WHAT, REMEDY)
    assert opened[150:].shape == (50, 20, 20)
    if change == "shorter":
        os.truncate(path, 5000)
    elif change == "other":
        np.save(path, RNG.random((100, 40, 20)))
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"a\.npy .*(it is cut off|changed while it was read; start again|No such file)"):
        opened[150:]


def test_a_pipe_in_an_arrays_place_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    for read in (read_array, open_array):
        with pytest.raises(InputError, match="is a pipe, not an array; write it again"):
            read(tmp_path / "a.npy", WHAT, REMEDY)
    with pytest.raises(InputError, match="is a pipe"), open_archive(tmp_path / "a.npy", WHAT, REMEDY):
        pass
