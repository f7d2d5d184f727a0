"""Videos as phones make them."""

import struct
from pathlib import Path

# The rotation that a player has to make, clockwise in degrees, as an mp4 tells it.
MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turn(path: Path, clockwise: int) -> None:
    """Write a display matrix into the header of an mp4, as phones do."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in MATRICES[clockwise])
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
