"""Any value in any place of a checkpoint's files, which others may have made: it is read, or refused in a line that names the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from parser_entry import Parser
from parsers import PARSERS

from splits.errors import InputError

VALUES: list[Any] = [
    None,
    True,
    -1,
    2**70,
    float("nan"),
    "text",
    b"bytes",
    [],
    {},
    (1,),
    {1},
    torch.zeros(()),
    torch.zeros(3),
    torch.ones(1, dtype=torch.complex64),
    torch.zeros(2).to_sparse(),
    torch.zeros(2, device="meta"),
    torch.float32,
]


def places(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below mappings and lists, by its keys."""
    yield above
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield from places(content[key], (*above, key))


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = content.copy()
    copy[place[0]] = changed(content[place[0]], place[1:], value)
    return copy


def refusal_of(parser: Parser, path: Path) -> str | None:
    try:
        parser.read(path)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["state_pt", "adam_pth", "encoder_pth"])
def test_any_value_in_any_place_is_read_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    parser.around(tmp_path)
    path = tmp_path / parser.place
    whole = torch.load(path, weights_only=True)
    refused = 0
    for place in places(whole):
        for value in VALUES:
            torch.save(changed(whole, place, value), path)
            said = refusal_of(parser, path)
            if said is not None:
                refused += 1
                assert path.parent.name in said, (place, value)
    assert refused > 50
