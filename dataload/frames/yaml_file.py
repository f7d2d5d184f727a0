"""YAML as calibration tools write it: OpenCV's FileStorage too, and no number read as another than the one that stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from splits.errors import InputError

# Cameras take a few kilobytes.
MAX_BYTES = 2**20
# YAML 1.1 reads 1:30 as 90, 010 as 8 and 1_000 as 1000; such texts stay texts, which no number is read from.
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$")
FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?$")
# FileStorage's own header, which is no YAML directive, and its keys without the blank that YAML asks for: ``data:[1., 2.]``.
OPENCV_HEADER = re.compile(r"\A\s*%YAML[^\n]*\n?")
TIGHT_KEY = re.compile(r"^(\s*[\w.]+):(?=[^\s:])", re.MULTILINE)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """``yaml.SafeLoader`` without its readings of texts as numbers and dates, with OpenCV's matrices, and without fields of one name."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The fields of a mapping; an error where two have one name, of which one would be lost."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the field {twice[0]!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _plain(loader: yaml.SafeLoader, node: Any) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _as_number(_plain(loader, node)))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _as_number(_plain(loader, node)))
_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", lambda loader, node: loader.construct_mapping(node, deep=True))


def _as_number(text: str) -> int | float | str:
    """The number of a text that is one; the text itself where a tag only says so."""
    if INTEGER.match(text):
        return int(text)
    return float(text) if FLOAT.match(text) else text


def read_yaml(path: Path) -> object:
    """What a YAML file holds.

    Raises:
        InputError: no such file, one too large to hold cameras, or no YAML; in one line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes, far more than cameras take; is it another file?")
        text = path.read_text(encoding="utf-8-sig")
        if OPENCV_HEADER.match(text):
            text = TIGHT_KEY.sub(r"\1: ", OPENCV_HEADER.sub("", text))
        return yaml.load(text, _Loader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:300]
        raise InputError(f"{path} is no YAML file ({said}); write it as md-data from-bag does, or remove it") from error
