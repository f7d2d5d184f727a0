"""Every parser of content keeps the contract: a value, or one line that names the file, soon and in little memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import contract
import pytest
from contract import REFUSED, VALUE, Broken, Workplace, limited_memory, watched
from fuzzing import fuzz_here, silence_console
from hostile import PARSER_OF_FOUND
from parser_entry import Parser
from parsers import PARSERS
from places import PROJECT, shared_folder

FOUND = Path(__file__).parent / "found"
# In `make test`; `make fuzz` reads many more.
INPUTS, DEAR_INPUTS = 100, 20
FORMS = sorted({parser.form for parser in PARSERS.values()})
# Where opening waits for the other end, this is long enough.
PIPE_SECONDS = 2.0


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest) -> Parser:
    return PARSERS[request.param]


@pytest.fixture
def workplace(parser: Parser, tmp_path: Path) -> Workplace:
    silence_console()
    return Workplace(parser, tmp_path)


def contents(parser: Parser) -> Iterator[bytes]:
    """What is laid in a file's place by mistake, and by those who mean harm."""
    seed, random = parser.seeds()[0], Random(parser.name)
    yield from (b"", b"\0", b"a", b"\n", bytes(1000), b"\xff" * 1000, random.randbytes(300), random.randbytes(5000))
    yield from (seed[: len(seed) * eighths // 8] for eighths in range(1, 8))
    yield from (seed[:-1], seed + b"\0", seed + seed, seed[1:])
    yield from (
        "täxt in Latin-1\n".encode("latin1"),
        "a b c\n".encode("utf-16"),
        b"\xef\xbb\xbf",
        b"x" * 200_000,
        b"1 " * 100_000,
        b"\n" * 50_000,
    )
    yield from (b"[" * 50_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"null", b"[]", b"{}", b"NaN", b"-1", b'"a"', b"9" * 5000, b"&a [*a]")
    # Text for binary, and the reverse.
    yield from (next(other for other in PARSERS.values() if other.form == form).seeds()[0] for form in FORMS)


def test_valid_files_are_read(parser: Parser, workplace: Workplace) -> None:
    """Else all that follows would be refused at the first byte, and show nothing."""
    with watched() as told:
        for number, seed in enumerate(parser.seeds()):
            workplace.put(seed)
            outcome = workplace.read(told)
            assert outcome.end == VALUE, f"seed {number}: {outcome.said}"


def test_other_contents(parser: Parser, workplace: Workplace) -> None:
    with watched() as told, limited_memory():
        for content in contents(parser):
            workplace.put(content)
            read(workplace, told, content[:60])


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link to nothing"])
@pytest.mark.parametrize("parser", [parser for parser in PARSERS.values() if parser.is_file], ids=lambda parser: parser.name)
def test_no_file(kind: str, parser: Parser, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "ALARM_SECONDS", PIPE_SECONDS)
    path = workplace.path
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    with watched() as told:
        read(workplace, told, kind)


def test_mutated_files(parser: Parser) -> None:
    tally = fuzz_here(parser, range(INPUTS if parser.cheap and parser.form != "yaml" else DEAR_INPUTS), seed=0, kept=None)
    assert tally.inputs
    if tally.findings:
        pytest.fail("\n".join(found["how"] for found in tally.findings.values()), pytrace=False)


FINDINGS = sorted(path.relative_to(FOUND).as_posix() for path in FOUND.glob("*/*"))


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_was_found(finding: str, tmp_path: Path) -> None:
    """Inputs that once broke a parser, by its name."""
    silence_console()
    workplace = Workplace(PARSERS[Path(finding).parent.name], tmp_path)
    with watched() as told, limited_memory():
        workplace.put((FOUND / finding).read_bytes())
        read(workplace, told, finding)


def test_hostile_files(shared: Path, tmp_path: Path) -> None:
    silence_console()
    files = sorted((shared_folder() / "cases" / "hostile").glob("*"))
    if not files:
        pytest.skip(f"{shared} has no hostile files")
    unknown = [path.name for path in files if not path.name.startswith(tuple(PARSER_OF_FOUND))]
    assert not unknown, "each needs its parser in PARSER_OF_FOUND"
    for number, path in enumerate(files):
        name = next(name for start, name in PARSER_OF_FOUND.items() if path.name.startswith(start))
        workplace = Workplace(PARSERS[name], tmp_path / str(number))
        with watched() as told, limited_memory():
            workplace.put(path.read_bytes())
            read(workplace, told, path.name)


@pytest.mark.parametrize(
    "reading",
    [
        "dataload.frames.depth_file import read_depth_values as read",
        "dataload.kitti.jpeg import convert; read = lambda path: convert(path, quality=92, delete=False)",
        "dataload.frames.picture import read_picture as read",
    ],
)
def test_pillow_warns_nobody(reading: str, tmp_path: Path) -> None:
    """In a process of its own, whose filters are those of the modules that a command imports."""
    for name in ("depth_png/ec5c77", "depth_tiff/84429a", "picture_tif/8e9181", "picture_gif/e960c8"):
        shutil.copy(FOUND / name, tmp_path / f"{name.partition('/')[0]}.png")
    program = f"from {reading}\nimport contextlib, pathlib, sys\n"
    program += "for path in map(pathlib.Path, sys.argv[1:]):\n    with contextlib.suppress(ValueError):\n        read(path)\n"
    done = subprocess.run([sys.executable, "-c", program, *map(str, tmp_path.iterdir())], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_the_contract_can_be_broken(tmp_path: Path) -> None:
    """What the tests above would miss, were it not noticed."""
    from splits.errors import InputError

    def reading(error: BaseException | None, say: str = "") -> Parser:
        def read(path: Path) -> None:
            if say:
                import warnings

                warnings.warn(say, stacklevel=1)
            if error is not None:
                raise error

        return Parser(name="x", modules=(), place="x.txt", read=read, seeds=lambda: [b""])

    with watched() as told:
        for broken in (
            reading(KeyError("x.txt")),
            reading(InputError("another file is damaged")),
            reading(InputError("")),
            reading(OSError("x.txt")),
            reading(MemoryError()),
            reading(RecursionError()),
            reading(SystemExit(1)),
            reading(None, "strange"),
        ):
            with pytest.raises(Broken):
                Workplace(broken, tmp_path).read(told)
        assert Workplace(reading(InputError("x.txt is damaged")), tmp_path).read(told).end == REFUSED


def read(workplace: Workplace, told: object, content: object) -> None:
    try:
        workplace.read(told)  # type: ignore[arg-type]
    except Broken as broken:
        pytest.fail(f"{content!r}: {broken}", pytrace=False)
