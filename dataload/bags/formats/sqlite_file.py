"""ROS 2 recordings in SQLite (``.db3``): a table of topics, a table of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dataload.bags.formats.container import CDR, CUT_OFF, HEAD_BYTES, Damage, Entry, Place, Topic, msgtype_of, unpack_zstd
from splits.errors import InputError

if TYPE_CHECKING:
    import apsw

MAGIC = b"SQLite format 3\0"


class SqliteFile:
    """A ``.db3``, of which each message may be packed by zstd; ``InputError`` where the file is none."""

    def __init__(self, path: Path, *, packed: bool = False) -> None:
        import apsw

        self._packed = packed
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if start != MAGIC:
            raise InputError(f"{path} is {'no SQLite recording' if start else 'empty'}")
        # A killed recorder leaves a file beside this one with what it had not written yet. Opened as unchanging (immutable), SQLite
        # would ignore it.
        beside = path.with_name(path.name + "-wal")
        mode = "mode=ro" if beside.is_file() and beside.stat().st_size else "immutable=1"
        try:
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            self._database = apsw.Connection(f"file:{quote(str(path.absolute()))}?{mode}", flags=flags)
            # Without it SQLite opens no file that is shorter than it says.
            self._database.execute("PRAGMA writable_schema=ON")
            rows = list(self._database.execute("SELECT id, name, type, serialization_format FROM topics ORDER BY id"))
            rows = [row for row in rows if None not in row]
            self._topics = {int(i): Topic(str(name), msgtype_of(str(kind)), str(form)) for i, name, kind, form in rows}
        except (apsw.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no ROS 2 recording, or is cut off before its first message ({error})") from error
        others = sorted({topic.encoding for topic in self._topics.values()} - {CDR})
        if others:
            raise InputError(f"{path} holds messages serialised as {', '.join(others)}, not as cdr; convert it with ros2 bag convert")
        self._blob: apsw.Blob | None = None

    def close(self) -> None:
        """Close the file."""
        if self._blob is not None:
            self._blob.close(True)
        self._database.close(True)

    def entries(self, wanted: Callable[[Topic], bool]) -> Iterator[Entry]:
        """As ``Container.entries``."""
        import apsw

        asked = {number for number, topic in self._topics.items() if wanted(topic)}
        try:
            for row, number, log_ns in self._database.execute("SELECT id, topic_id, timestamp FROM messages ORDER BY id"):
                if number not in self._topics:
                    continue
                head = b""
                if number in asked:
                    head = self.read((row,))[:HEAD_BYTES] if self._packed else self._open(row).read(HEAD_BYTES)
                yield Entry(self._topics[number], int(log_ns), head, (row,))
        except apsw.Error as error:
            raise Damage(f"it is cut off or damaged ({error})") from error

    def read(self, place: Place) -> bytes:
        """As ``Container.read``."""
        import apsw

        try:
            data = self._open(place[0]).read()
        except apsw.Error as error:
            raise Damage(CUT_OFF) from error
        return unpack_zstd(data) if self._packed else data

    def _open(self, row: int) -> apsw.Blob:
        """A message, none of it read yet."""
        if self._blob is None:
            self._blob = self._database.blob_open("main", "messages", "data", row, False)
        else:
            import apsw

            try:
                self._blob.reopen(row)
            except apsw.Error:
                self._blob = None  # it is of no more use
                raise
        return self._blob
