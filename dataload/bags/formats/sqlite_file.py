"""ROS 2 recordings in SQLite (``.db3``): a table of topics, a table of messages.

A database is a program of its own: views, triggers and computed columns are commands that run as it is read. None of them is: both tables
have to be plain ones, and are read by their rows' numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dataload.bags.formats.container import (
    CDR,
    CUT_OFF,
    GARBLED,
    HEAD_BYTES,
    MOST_NAME,
    MOST_TOPICS,
    Damage,
    Entry,
    Expansion,
    Place,
    Topic,
    garbled,
    head_of_zstd,
    named,
    require_part,
    topic_of,
    unpack_zstd,
)
from splits.errors import InputError
from splits.faults import first_line, parsing
from splits.reading import open_file

if TYPE_CHECKING:
    import apsw

MAGIC = b"SQLite format 3\0"
# The columns that are read of each table.
TABLES = {"topics": ("id", "name", "type", "serialization_format"), "messages": ("topic_id", "timestamp", "data")}
# The definitions of tables, as texts; rosbag2's have some hundred letters.
MOST_TEXT = 10**6
# Pages are used as often as the file has bytes, and so often more: a row takes 16 bytes at least, and half a dozen uses. A page that has
# to be read again takes as long as so many uses.
FREE_USES, USES_OF_READING = 2 * 10**7, 64


class SqliteFile:
    """A ``.db3``, of which each message may be packed by zstd; ``InputError`` where the file is none."""

    def __init__(self, path: Path, *, packed: bool = False) -> None:
        self._packed = packed
        with open_file(path, "a recording", "copy it again, or leave it out") as file:
            start = file.read(len(MAGIC))
        if start != MAGIC:
            raise InputError(f"{path} is {'no SQLite recording' if start else 'empty'}")
        size = path.stat().st_size
        self._expansion, self._most_uses = Expansion(size), FREE_USES + size
        self._blob: apsw.Blob | None = None
        self._database = _open_unchanged(path)
        try:
            with parsing(path, "a ROS 2 recording that is whole up to its first message", "copy it again, or leave it out"):
                self._topics = self._read_topics()
            others = sorted({topic.encoding for topic in self._topics.values()} - {CDR})
            if others:
                said = named(", ".join(others))
                raise InputError(f"{path} holds messages serialised as {said}, not as cdr; convert it with ros2 bag convert")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._blob is not None:
            self._blob.close(True)
        self._database.close(True)

    def entries(self, wanted: Callable[[Topic], bool]) -> Iterator[Entry]:
        """As ``Container.entries``."""
        import apsw

        asked = {number for number, topic in self._topics.items() if wanted(topic)}
        with garbled():
            try:
                yield from self._all_entries(asked)
            except apsw.Error as error:
                raise Damage(f"it is cut off or damaged ({first_line(error)})") from error

    def _all_entries(self, asked: set[int]) -> Iterator[Entry]:
        """As ``entries``; raises what the content brings about."""
        last = None
        for row, number, log_ns in self._database.execute("SELECT rowid, topic_id, timestamp FROM messages ORDER BY rowid"):
            self._expansion.take_record()
            self._require_few_uses()
            if last is not None and row <= last:  # the pages of a damaged file can lead back to earlier ones
                raise Damage(GARBLED)
            last = row
            if number not in self._topics:
                continue
            head = b""
            if number in asked:
                head = head_of_zstd(partial(self._message, row)) if self._packed else self._open(row).read(HEAD_BYTES)
            yield Entry(self._topics[number], int(log_ns), head, (row,))

    def read(self, place: Place) -> bytes:
        """As ``Container.read``."""
        data = self._message(place[0])
        return unpack_zstd(data) if self._packed else data

    def _require_few_uses(self) -> None:
        """``Damage`` where reading goes through the file over and over: a row can lie in the pages of every other one."""
        import apsw

        known, read = (self._database.status(counter)[0] for counter in (apsw.SQLITE_DBSTATUS_CACHE_HIT, apsw.SQLITE_DBSTATUS_CACHE_MISS))
        if known + USES_OF_READING * read > self._most_uses:
            raise Damage("its messages lie in each other's pages")

    def _message(self, row: int) -> bytes:
        self._require_few_uses()
        with garbled(CUT_OFF):
            blob = self._open(row)
            require_part(blob.length())
            return blob.read()

    def _read_topics(self) -> dict[int, Topic]:
        """The topics by their numbers; raises what the content brings about."""
        # Without it SQLite opens no file that is shorter than it says.
        self._database.execute("PRAGMA writable_schema=ON")
        for table, columns in TABLES.items():
            self._require_plain(table, columns)
        select = f"SELECT id, name, type, serialization_format FROM topics LIMIT {MOST_TOPICS}"
        # Each is checked before the next is read: rows of a damaged file can all hold the same megabyte.
        rows = (row for row in self._database.execute(select) if None not in row)
        return dict(sorted((int(i), topic_of(str(name), str(kind), str(form)[:MOST_NAME])) for i, name, kind, form in rows))

    def _require_plain(self, table: str, columns: tuple[str, ...]) -> None:
        """``ValueError`` unless that is a table whose columns hold what was written into them."""
        kinds = [row[2] for row in self._database.execute("PRAGMA main.table_list") if row[0] == "main" and row[1] == table]
        plain = {row[1] for row in self._database.execute(f"PRAGMA main.table_xinfo({table})") if not row[6]}
        if kinds != ["table"] or not plain.issuperset(columns):
            raise ValueError(f"it has no plain table {table} with {', '.join(columns)}")

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


def _open_unchanged(path: Path) -> apsw.Connection:
    """The database of a file, to read alone, and so that nothing in it runs."""
    import apsw

    # A killed recorder leaves a file beside this one with what it had not written yet. Opened as unchanging (immutable), SQLite
    # would ignore it.
    beside = path.with_name(path.name + "-wal")
    mode = "mode=ro" if beside.is_file() and beside.stat().st_size else "immutable=1"
    with parsing(path, "a ROS 2 recording", "copy it again, or leave it out"):
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        database = apsw.Connection(f"file:{quote(os.fsencode(path.absolute()))}?{mode}", flags=flags)
        for setting in (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, apsw.SQLITE_DBCONFIG_ENABLE_VIEW, apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER):
            database.config(setting, 0)
        database.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        database.limit(apsw.SQLITE_LIMIT_LENGTH, MOST_TEXT)
    return database
