"""``opt.json`` of a run that is resumed, as any hand or disk may have left it: one line that names the file and the option."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.training.config import TrainConfig, saved_options
from splits.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    config = TrainConfig.from_options(dataset="demo", height=96, width=160, log_dir=tmp_path, model_name="run")
    path = tmp_path / "run" / "models" / "opt.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(saved_options(config)))
    return path


def resumed(path: Path) -> TrainConfig:
    return TrainConfig.from_options(log_dir=path.parents[2], model_name="run", resume=True)


def refusal_of(path: Path) -> str | None:
    try:
        resumed(path)
    except InputError as error:
        return str(error)
    return None


def test_every_option_of_every_other_type_is_read_or_refused_by_its_name(path: Path) -> None:
    whole = json.loads(path.read_text())
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        2**70,
        -1e308,
        float("nan"),
        float("inf"),
        "",
        "x" * 5000,
        "\x1b[31m\n",
        "a\0b",
        "\ud800",
        [],
        [[]],
        [None],
        {},
        {"a": 1},
    ]
    refused = 0
    for name in whole:
        for value in values:
            path.write_text(json.dumps(whole | {name: value}))
            said = refusal_of(path)
            if said is not None:
                refused += 1
                assert "opt.json" in said, (name, value, said)
                assert said.isprintable()
                assert len(said) <= 1000
    assert refused > 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"3",
        b"null",
        b'"text"',
        b"{",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b"\xff\xfe{}",
        b'{"batch_size": ' + b"9" * 5000 + b"}",
        b"\0" * 99,
    ],
    ids=range(11),
)
def test_what_holds_no_options_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"opt\.json is not (valid JSON|UTF-8 text)"):
        resumed(path)


def test_a_copied_run_stays_where_it_is(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"log_dir": "/somewhere/else", "model_name": "another"}))
    assert resumed(path).run_folder == path.parents[1]


@pytest.mark.parametrize("world", [0, -1, 1.5, "2", [1], True])
def test_a_number_of_processes_that_is_none_is_refused(world: Any, path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"world_size": world}))
    with pytest.raises(InputError, match=r"opt\.json is damaged: world_size="):
        resumed(path)
