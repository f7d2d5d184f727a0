"""The fuzzer finds what it is for, in libraries that crash and hang too; its mutations reach what lies below checksums."""

import io
import os
import signal
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import fuzzing
import numpy as np
import pytest
import xxhash
from fuzzing import fuzz_apart, input_of
from mutator import FORMS, mutate
from parser_entry import Parser
from parsers import PARSERS
from tiny_files import saved_npz

from splits.errors import InputError

SEED = b"a valid file.\n"


def parser(read: Callable[[bytes], object]) -> Parser:
    """A parser of bytes that reads ``SEED`` always."""

    def read_file(path: Path) -> None:
        data = path.read_bytes()
        if data != SEED:
            read(data)

    return Parser(name="x", modules=(), place="x.txt", read=read_file, seeds=lambda: [SEED], form="text")


def refuse(_: bytes) -> None:
    raise InputError("x.txt is damaged")


def crash(data: bytes) -> None:
    if len(data) % 2:
        os.kill(os.getpid(), signal.SIGSEGV)


def stall(data: bytes) -> None:
    """As a library that never comes back to Python: no signal is heard."""
    if len(data) % 2:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60)


def break_contract(data: bytes) -> None:
    if len(data) % 2:
        raise KeyError(len(data))


def number_of_odd(inputs: int) -> int:
    return sum(len(input_of(parser(refuse), [SEED], 5, number)) % 2 for number in range(inputs))


@pytest.mark.parametrize(("read", "kind", "inputs"), [(crash, "crash", 12), (stall, "crash", 3), (break_contract, "traceback", 40)])
def test_findings(read: Callable[[bytes], object], kind: str, inputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "STALLED_SECONDS", 0.5)
    tally = fuzz_apart(parser(read), seed=5, inputs=inputs, seconds=60, kept=tmp_path / "kept")
    assert tally.inputs == inputs, "each is counted once, whatever the others did"
    assert tally.ends["broken"] == number_of_odd(inputs) > 0
    (name,) = tally.findings
    assert name.startswith(kind)
    data = Path(tally.findings[name]["input"]).read_bytes()
    assert len(data) % 2, "the input that did it is kept"


def test_a_parser_that_keeps_the_contract(tmp_path: Path) -> None:
    tally = fuzz_apart(parser(refuse), seed=5, inputs=50, seconds=60, kept=tmp_path / "kept")
    assert tally.inputs == 50
    assert not tally.findings
    assert not (tmp_path / "kept").exists()


def test_a_seed_that_cannot_be_read_is_no_finding(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise KeyError

    with pytest.raises(RuntimeError, match="KeyError"):
        fuzz_apart(Parser(name="x", modules=(), place="x", read=fail, seeds=lambda: [SEED]), seed=0, inputs=5, seconds=60, kept=tmp_path)


def test_the_same_numbers_make_the_same_inputs() -> None:
    for each in PARSERS.values():
        seeds = list(each.seeds())
        made = [input_of(each, seeds, 3, number) for number in range(3)]
        assert made == [input_of(each, seeds, 3, number) for number in range(3)]
        assert len(set(made)) > 1


def structural(form: str, seed: bytes) -> list[bytes]:
    random = Random(form)
    return [random.choice(FORMS[form])(seed, random) for _ in range(40)]


def test_checksums_fit_what_is_changed() -> None:
    changed = structural("zip", saved_npz(np.zeros(3), np.ones((2, 2))))
    assert len(set(changed)) > 20
    for data in changed:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
    for data in structural("png", PARSERS["depth_png"].seeds()[0]):
        place = 8
        while place < len(data):
            length, kind = struct.unpack_from(">I4s", data, place)
            content = data[place + 8 : place + 8 + length]
            assert struct.unpack_from(">I", data, place + 8 + length) == (zlib.crc32(kind + content),)
            place += 12 + length
    for data in structural("store", PARSERS["frame_store"].seeds()[0]):
        _, _, length, checksum = struct.unpack_from("<8sQQQ", data)
        assert xxhash.xxh3_64_intdigest(data[32 : 32 + length]) == checksum


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_a_parser_and_bounded_inputs(form: str) -> None:
    seeds = [each.seeds()[0] for each in PARSERS.values() if each.form == form]
    assert seeds
    assert all(len(mutate(form, seeds, Random(number))) <= 1 << 18 for number in range(30))
