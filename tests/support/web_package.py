"""What ``--target web`` fetches by npm, in small."""

import io
import tarfile
from pathlib import Path

from export.targets import web


def made_package(path: Path, names: tuple[str, ...] = web.NEEDED) -> Path:
    """An archive as npm packs it, of small files."""
    with tarfile.open(path, "w:gz") as archive:
        for name in (*names, "other.js"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return path
