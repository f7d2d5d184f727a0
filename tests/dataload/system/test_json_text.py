"""JSON that programs of every language read."""

import json
import math

import pytest

from dataload.system.json_text import json_text


def test_numbers_that_are_none_are_null_wherever_they_are() -> None:
    value = {"a": math.nan, "b": [1.5, -math.inf, ("x", math.inf)], "c": {"d": math.nan, "e": None}, "f": 2, "g": "caf\udce9\n"}
    text = json_text(value)
    assert text.isascii()
    assert "\n" not in text
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read == {"a": None, "b": [1.5, None, ["x", None]], "c": {"d": None, "e": None}, "f": 2, "g": "caf\udce9\n"}


def test_numbers_keep_all_their_digits() -> None:
    assert json.loads(json_text({"x": 0.1 + 0.2}, 2)) == {"x": 0.1 + 0.2}
