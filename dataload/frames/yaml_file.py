"""YAML as calibration tools write it: OpenCV's FileStorage too, and no number read as another than the one that stands there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import yaml

from splits.faults import parsing
from splits.reading import read_text

WHAT, REMEDY = "a YAML file", "write it as md-data from-bag does, or remove it"
# Cameras take a few kilobytes, and ten levels of some hundred values; yaml reads 100 kB/s.
MAX_BYTES, MAX_DEPTH, MAX_NODES = 2**17, 32, 10_000
# YAML 1.1 reads 1:30 as 90, 010 as 8 and 1_000 as 1000; such texts stay texts, which no number is read from.
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$")
FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?$")
# FileStorage's own header, which is no YAML directive, and its keys without the blank that YAML asks for: ``data:[1., 2.]``.
OPENCV_HEADER = re.compile(r"\A\s*%YAML[^\n]*\n?")
TIGHT_KEY = re.compile(r"^([ \t]*[\w.]+):(?=[^\s:])", re.MULTILINE)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """``yaml.SafeLoader`` without its readings of texts as numbers and dates, with OpenCV's matrices, and without fields of one name.

    What aliases stand for is counted as if it were written out: a few bytes may else hold more than any memory.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.number = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node; an error where nodes are nested deeper, or are more, than those of cameras."""
        mark, is_alias, before = self.peek_event().start_mark, self.check_event(yaml.AliasEvent), self.number
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        # An alias within what it stands for has no end.
        self.number += self.sizes.get(id(node), MAX_NODES + 1) if is_alias else 1
        if self.number > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"it holds more than {MAX_NODES} values", mark)
        if not is_alias:
            self.sizes[id(node)] = self.number - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The fields of a mapping; an error where two have one name, of which one would be lost."""
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = sorted(name for name, number in names.items() if number > 1)
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
    text = read_text(path, WHAT, REMEDY, MAX_BYTES)
    with parsing(path, WHAT, REMEDY):
        if OPENCV_HEADER.match(text):
            text = TIGHT_KEY.sub(r"\1: ", OPENCV_HEADER.sub("", text))
        return yaml.load(text, _Loader)
