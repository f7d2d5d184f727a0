"""The bytes of small files, made by numpy's and our own writers."""

import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np


def made_by(write: Callable[[Path], object], name: str) -> list[bytes]:
    """What a writer of ours writes."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return [(Path(folder) / name).read_bytes()]


def saved_npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def saved_npz(*arrays: np.ndarray, compressed: bool = False, **named: np.ndarray) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, *arrays, **named)
    return out.getvalue()
