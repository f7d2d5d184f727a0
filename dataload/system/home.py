"""The user's home folder: what ``~`` stands for, and whether there is one at all."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

from dataload.system.console import console
from splits.errors import InputError


def is_home_known() -> bool:
    """Whether anything says where the user's home folder is: HOME, or the entry of the user in the system's list."""
    return os.path.expanduser("~") not in ("~", "") and os.environ.get("HOME") != ""


def name_user() -> None:
    """Give a user whom the system's list does not have a name: torch before 2.14 asks for it when it is imported, and fails without."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def expand_home(path: str) -> str:
    """A path with a leading ``~`` or ``~user`` replaced, for where no shell has done that: ``--out=~/x``, quotes, saved options.

    ``./~`` is a file or folder of that name; so is what looks like the home folder of a user who does not exist, where it is there.

    Raises:
        InputError: nothing says where that home folder is.
    """
    name = path.partition("/")[0]
    if name == "~" and not is_home_known():
        raise InputError(f"{path}: the home folder is unknown (HOME is not set); write the whole path")
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(name):
        raise InputError(f"{path}: there is no user {name[1:]!r} whose home folder it could be; write ./{path} for a name like that")
    # Otherwise pathlib would take the dot of "./~" away, and whoever expands it again would take it for the home folder.
    return os.path.abspath(expanded) if os.path.normpath(expanded).startswith("~") else expanded


@cache
def temporary_cache(why: str) -> Path:
    """A private cache folder of this user below the temporary folder; reported once."""
    folder = Path(tempfile.gettempdir()) / f"md-engine-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        # Everybody may write into the temporary folder: somebody else could have been there first.
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    except OSError:
        ours = False
    if not ours:
        folder = Path(tempfile.mkdtemp(prefix="md-engine-"))
    console.warning("%s: the cache is kept in %s; set XDG_CACHE_HOME to name another place", why, folder)
    return folder
