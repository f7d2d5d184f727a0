"""Zips from anybody are refused before they take memory, and before anything of them is written."""

import struct
import zipfile
from io import BytesIO

import pytest

from dataload.system.zips import Refused, open_zip, plain_files
from splits.limits import ARCHIVE_ENTRIES

REGULAR, LINK = 0o100644, 0o120777


def zip_of(*entries: tuple[str, int], packing: int = zipfile.ZIP_DEFLATED) -> BytesIO:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", packing) as opened:
        for name, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, packing
            opened.writestr(info, b"content of a file")
    return file


def long_list() -> BytesIO:
    """A zip whose list of entries is 40 MB long, of one entry repeated."""
    packed = zip_of(("a", REGULAR)).getvalue()
    start, entry = packed[: packed.index(b"PK\1\2")], packed[packed.index(b"PK\1\2") : packed.index(b"PK\5\6")]
    entries = entry * (40 * 2**20 // len(entry))
    return BytesIO(start + entries + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 65535, 65535, len(entries), len(start), 0))


def encrypted() -> BytesIO:
    """A zip whose only entry says that it is encrypted, in its own header and in the list."""
    packed = bytearray(zip_of(("a", REGULAR)).getvalue())
    packed[6] |= 1
    packed[packed.index(b"PK\1\2") + 8] |= 1
    return BytesIO(bytes(packed))


def test_plain_files_are_named_in_their_order() -> None:
    with open_zip(zip_of(("own/", 0o040755), ("own/b", REGULAR), ("own/deep/a", 0), packing=zipfile.ZIP_STORED)) as opened:
        assert list(plain_files(opened)) == list(plain_files(opened, "own/")) == ["own/b", "own/deep/a"]
        assert opened.read("own/deep/a") == b"content of a file"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (lambda: zip_of(("own/../../a", REGULAR)), "its entry 'own/../../a' would lie outside own/ or is no plain file"),
        (lambda: zip_of(("other/a", REGULAR)), "its entry 'other/a' would lie outside own/"),
        (lambda: zip_of(("own/a", LINK)), "its entry 'own/a' would lie outside own/ or is no plain file"),
        (lambda: zip_of(("own/\x1b[2J", REGULAR)), "or is no plain file"),
        (lambda: zip_of(("own/" + "a" * 200, REGULAR)), "or is no plain file"),
        (lambda: zip_of(("own/" + "a/" * 20 + "b", REGULAR)), "or is no plain file"),
        (lambda: zip_of(("own/a", REGULAR), packing=zipfile.ZIP_LZMA), "is packed in a way that is not read"),
        (lambda: zip_of(("own/a", REGULAR), packing=zipfile.ZIP_BZIP2), "is packed in a way that is not read"),
        (lambda: zip_of(*(("own/a", REGULAR) for _ in range(2))), "its entry 'own/a' stands there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_plain_file_of_the_folder_is_refused(file, said: str) -> None:
    with pytest.raises(Refused) as refused:
        plain_files(open_zip(file()), "own/")
    assert said in str(refused.value)


def test_what_is_encrypted_is_refused() -> None:
    with pytest.raises(Refused, match="it is encrypted"):
        plain_files(open_zip(encrypted()))


def test_the_list_of_entries_is_bounded_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match=r"its list of entries has more than 30,000,000 bytes \(MD_MAX_ARCHIVE_ENTRIES takes longer ones\)"):
        open_zip(long_list())
    monkeypatch.setenv(ARCHIVE_ENTRIES.variable, "2")
    assert len(open_zip(zip_of(("a", 0), ("b", 0))).infolist()) == 2
    with pytest.raises(Refused, match=r"it has 3 entries, more than 2 \(MD_MAX_ARCHIVE_ENTRIES takes more\)"):
        open_zip(zip_of(("a", 0), ("b", 0), ("c", 0)))
