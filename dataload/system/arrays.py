"""What numpy raises on files that are no arrays, or that are damaged."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

# A header is Python's syntax, an archive may be encrypted or of a kind that zipfile does not know, and a shape larger than memory.
ARRAY_FAULTS = (
    OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, SyntaxError, OverflowError, MemoryError, RecursionError,
    RuntimeError, NotImplementedError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
