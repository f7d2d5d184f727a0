"""Split lists, which frames to train and test on: the published ones by name, or a folder of ``{train,val,test}_files.txt``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from splits import reading, rules
from splits.errors import InputError
from splits.faults import name_faults
from splits.lazy import lazy_names

if TYPE_CHECKING:
    __version__: str
else:
    __getattr__, __dir__ = lazy_names(__name__, {})

__all__ = [
    "NAMES",
    "InputError",
    "__version__",
    "archives",
    "check_name",
    "eigen_to_benchmark_ids",
    "read_lines",
    "split_folder",
    "subset_source",
    "subsets",
    "write_splits",
]

NAMES: tuple[str, ...] = tuple(rules.LISTS)
ARCHIVES_FILE = "kitti_archives_to_download.txt"
IDS_FILE = "eigen_to_benchmark_ids.npy"
LINE_HINT = "write one '<folder> <frame> <side>' per line"


def subsets(name: str) -> tuple[str, ...]:
    """Subsets of a named split, ``("train", "val", "test_09", "test_10")`` for odom; ``InputError`` for an unknown name."""
    return tuple(_lists_of(name))


def split_folder(split: str) -> Path | None:
    """The folder that ``split`` names, None for a known name; a folder called like a known name is given as a path, ``./odom``."""
    return Path(split) if split not in NAMES and Path(split).is_dir() else None


def check_name(split: str) -> None:
    """Raise ``InputError`` where ``split`` is neither a folder nor a known name; reads nothing."""
    if split_folder(split) is None:
        _lists_of(split)


def read_lines(split: str, subset: str) -> list[str]:
    """Lines of one list, without their line ends; a folder's file keeps its blank lines, so positions are line numbers.

    Args:
        split: one of ``NAMES``, else a folder.
        subset: ``train``, ``val``, ``test``, or ``test_09`` for the file ``test_files_09.txt``.

    Raises:
        InputError: neither a folder nor a name; no such list; an empty or unreadable one.
    """
    folder = split_folder(split)
    if folder is not None:
        return _read_file(folder, subset)
    lists = _lists_of(split)
    if subset not in lists:
        raise InputError(f"split {split} has no {subset} list, only {', '.join(lists)}; {_splits_with(subset)}")
    return lists[subset]()


def subset_source(split: str, subset: str) -> str:
    """What to call a list in messages: its file, or ``split eigen_zhou, train``.

    Args:
        split: a published name, or a folder.
        subset: train, val, test, or another list of it.
    """
    folder = split_folder(split)
    return f"split {split}, {subset}" if folder is None else str(folder / _file_name(subset))


def archives() -> list[str]:
    """Addresses of the KITTI raw archives that hold every drive of the named splits."""
    return rules.archives()


def eigen_to_benchmark_ids() -> list[int]:
    """Positions of the 652 ``eigen_benchmark`` images in the 697 of ``eigen``."""
    return rules.eigen_to_benchmark_ids()


def write_splits(folder: Path, opened: Callable[[Path], AbstractContextManager[Path]] = nullcontext) -> list[Path]:
    """Write every list as ``<folder>/<name>/<subset>_files.txt``, and the archive list and the ids beside them; returns the files.

    Args:
        folder: made where it is missing.
        opened: gives the path that each file is written to before it gets its name, ``dataload.system.files.whole_file`` say; in place
            without it.
    """
    import numpy as np

    texts = {f"{name}/{_file_name(subset)}": make() for name, lists in rules.LISTS.items() for subset, make in lists.items()}
    texts[ARCHIVES_FILE] = archives()
    written = []
    for name, lines in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with name_faults(path), opened(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        written.append(path)
    ids = folder / "benchmark" / IDS_FILE
    with name_faults(ids), opened(ids) as temporary:
        np.save(temporary, np.array(eigen_to_benchmark_ids(), dtype="<i8"))
    return [*written, ids]


def _file_name(subset: str) -> str:
    """``test_09`` -> ``test_files_09.txt``."""
    stem, _, sequence = subset.partition("_")
    return f"{stem}_files_{sequence}.txt" if sequence else f"{stem}_files.txt"


def _lists_of(name: str) -> dict[str, rules.ListMaker]:
    if name in rules.LISTS:
        return rules.LISTS[name]
    if Path(name).is_file():
        raise InputError(f"split {name!r} is a file; give its folder, which holds train_files.txt, val_files.txt or test_files.txt")
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"split {name!r} is neither a folder nor a known name; {hint}"
        f"known are {', '.join(NAMES)}, or give a folder that holds train_files.txt, val_files.txt or test_files.txt"
    )


def _splits_with(subset: str) -> str:
    names = [name for name, lists in rules.LISTS.items() if subset in lists]
    return f"splits with {subset}: {', '.join(names)}" if names else "no named split has one"


def _read_file(folder: Path, subset: str) -> list[str]:
    path = folder / _file_name(subset)
    if not path.exists():
        has = sorted(p.name for p in folder.glob("*_files*.txt"))
        raise InputError(f"{path} is missing; the folder has {', '.join(has) if has else 'no *_files.txt at all'}")
    lines = reading.read_lines(path, "a split list", LINE_HINT)
    if not any(line.strip() for line in lines):
        raise InputError(f"{path} is empty; {LINE_HINT}")
    return lines
