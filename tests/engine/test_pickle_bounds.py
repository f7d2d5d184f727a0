"""Small files of weights that stand for more than a machine has: refused in a line before anything is made of them."""

import struct
import zipfile
from pathlib import Path

import pytest
from hostile_files import zip_of_entries

from engine.torch_file import read_object
from engine.weights import has_weights
from splits.errors import InputError

START, END = b"\x80\x02", b"."


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def tensor(count: int, size: int, stride: int) -> bytes:
    """A tensor as torch pickles one, of a storage that says it has ``count`` numbers."""
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + number(count) + b"tQ"
    arguments = storage + number(0) + number(size) + b"\x85" + number(stride) + b"\x85" + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def under(key: bytes, value: bytes) -> bytes:
    return b"}" + text(key) + value + b"s"


def doubled(opcodes: bytes, times: int) -> bytes:
    """What is at 0 of the memo, twice in a container at 1, that twice in one at 2, and so on."""
    return b"".join(opcodes.replace(b"?", b"h" + bytes([n])) + b"q" + bytes([n + 1]) for n in range(times))


PICKLES = {
    "opcodes": (b"]" * 2_000_000, "more parts than any file of weights"),
    "hashes": (b"})q\x00" + doubled(b"??\x86", 60) + b"Ns", "it nests tuples in tuples"),
    "bytes": (b"c__builtin__\nbytearray\n" + number(2**33) + b"\x85R", "it makes bytes of any number"),
    "nested": (b"]" * 200_000 + b"a" * 199_999, "it is nested too deeply"),
    "count": (under(b"encoder.conv1.weight", tensor(2**34, 2**34, 1)), "corrupt or no weights file"),
    "size": (under(b"encoder.conv1.weight", tensor(16, 2**40, 1)), "corrupt or no weights file"),
    "negative": (under(b"encoder.conv1.weight", tensor(16, -5, 1)), "corrupt or no weights file"),
    "mappings": (
        b"}q\x00" + doubled(b"}(" + b"".join(text(b"%d" % n) + b"?" for n in range(20)) + b"u", 8),
        "holds more than 100,000 values",
    ),
}


def archive(path: Path, pickled: bytes, kind: int = zipfile.ZIP_STORED, storage: bytes = bytes(64)) -> Path:
    with zipfile.ZipFile(path, "w", kind) as opened:
        for name, content in (("data.pkl", START + pickled + END), ("byteorder", b"little"), ("data/0", storage), ("version", b"3\n")):
            opened.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("name", PICKLES)
def test_what_would_take_a_machine_is_refused(name: str, tmp_path: Path) -> None:
    pickled, why = PICKLES[name]
    path = archive(tmp_path / "model.pth", pickled)
    with pytest.raises(InputError, match=rf"model\.pth .*{why}"):
        has_weights(path, "encoder")


def test_lists_that_hold_one_another_are_gone_through_once(tmp_path: Path) -> None:
    assert isinstance(read_object(archive(tmp_path / "model.pth", b"]q\x00" + doubled(b"](??e", 60))), list)


def test_a_tensor_that_repeats_one_number_fits_no_network(tmp_path: Path) -> None:
    path = archive(tmp_path / "encoder.pth", under(b"encoder.conv1.weight", tensor(16, 2**40, 0)))
    assert read_object(path)["encoder.conv1.weight"].numel() == 2**40  # of 64 bytes of memory


def test_compressed_parts_are_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.pth", under(b"a", tensor(2**24, 2**24, 1)), zipfile.ZIP_DEFLATED, bytes(2**26))
    with pytest.raises(InputError, match=r"its parts are compressed or overlap, which torch\.save does not"):
        read_object(path)


def test_a_list_of_entries_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(zip_of_entries(400_000))
    with pytest.raises(InputError, match=r"model\.pth is corrupt or no weights file \(its table of contents, .* it has 400,000 entries"):
        read_object(tmp_path / "model.pth")


def test_the_old_format_makes_no_room_for_more_than_it_has(tmp_path: Path) -> None:
    import pickle

    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system)]
    path = tmp_path / "model.pth"
    path.write_bytes(b"".join(parts) + START + b"]" * 2_000_000 + END)
    with pytest.raises(InputError, match="more parts than any file of weights"):
        read_object(path)
