"""Plain English wherever a user reads: help, messages, docstrings and comments of the rooms and the benchmarks, templates, pages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from places import PROJECT, ROOMS

READ = (*ROOMS, "benchmarks")
PROGRAMS = ("md-train", "md-eval", "md-export", "md-predict", "md-data")
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", "splits/*.md")
# The templates of reports and model cards, the web page, what make prints.
TEMPLATES = ("engine/**/*.j2", "export/**/*.j2", "export/targets/page/*.js", "export/targets/page/*.html", "Makefile", "setup.py")

# What readers stumble over, and what to say.
PHRASES = {
    r"(goes|going) on|go on (with|without|in|from|until)|(cannot|may|to|would) go on": "continue; resume",
    r"the same command (goes on|continues|fetches|tries|with --resume)": "repeat the command to resume",
    r"told": "reported; given; set; distinguished",
    r"judge[ds]?": "evaluated; checked; measured",
    r"look(ed|s) (at|through)": "checks; searches; measures",
    r"errands?": "batch; work",
    r"so-manieth": "every N-th",
    r"let be": "cancelled; left alone",
    r"(is|are|was|were|that|been) broken off|broke off": "interrupted; ended early",
    r"say(s)? otherwise": "overrides",
    r"loses to [\"']?nothing moved": "the automask discards the pixel",
    r"(would|does|do) not repay": "is not worth it; saves no time",
    r"for want of": "waiting for; because ... ran out",
    r"(is|are|was|were|be) passed over": "is skipped; is ignored",
    r"anew": "again",
    r"nobody (knows|says|has said|gave|gives)": "is unknown; is not given",
    r"(where|jittered as|as) drawn": "where the sample's draw says so",
    r"stands? there already": "exists already",
    r"takes? (it|them|a store|frame stores|the file|the folder) away": "remove",
    r"(?<!/)one's own": "your own",
    r"(can|cannot|to) be had": "is available; can be made, taken, downloaded",
}
# An inversion: "Interrupted, the same command resumes".
INVERSION = r"(?:^|(?<=[.;:] ))(?!Indeed)(?:[A-Z][a-z]+ed|Broken|Given|Taken|Written|Told|Cut), (?:the|a|an|it|they|its|this|these) "
# Words of the code that CONTRIBUTING.md explains, and pages for users do without.
INNER = {
    r"twins?": "the loader without DALI; a second implementation",
    r"parcels?": "several tensors in one copy",
    r"row prior": "the best depth per image row, ignoring the image",
}
FOR_CONTRIBUTORS = ("CONTRIBUTING.md", "docs/contributing.md")

UNIT = (
    r"(?:step|pixel|source|core|metre|file|frame|image|epoch|second|minute|hour|day|batch|scale|sequence|folder|line|row|column|call|run|"
    r"drive|list|camera|process|thread|worker|tensor|video|map|level|module|recording|part|pair|split|model|channel|parameter|update|"
    r"directory|machine|child|sample|target|dataset|kernel|package|message|command|value|layer|round|pass|request|degree|page|test)"
)
NUMBER = r"(?:\d[\d.,]*|two|three|four|five|six|eight|ten|twelve|a hundred|a thousand|so many)"
COUNTED = (
    r"(?:[MGk]i?B|ms|px|bytes|images|samples|frames|steps|parts|lines|rows|numbers|pixels|tensors|kernels|calls|updates|epochs|batches|"
    r"rays|points|units|threads|files|passes|metres|times|examples|operators|seconds|minutes|hours)"
)
ONE_OF = (
    r"(?:line|row|loss|value|number|kernel|tensor|file|copy|call|update|engine|batch|read|pass|process|thread|entry|frame|image|record|map|"
    r"directory|folder|letter|byte)"
)
# The article belongs to the next words: "the frames a sequence holds", "once a run has ended", "one a file may hold".
CLAUSE = (
    r"(?![-\w'])(?! (?:that|which|is|was|are|had|can|may|must|would|will|ended|did|of|saw|\w{2,}[^s]s|store|size|number|format|decoder)\b)"
)
PER = "|".join(
    [
        rf"\b(?:once|twice|(?:{NUMBER}|several|many) times) an? {UNIT}{CLAUSE}",  # once a file
        rf"(?<![-\w]){NUMBER}(?: {COUNTED})? an? {UNIT}{CLAUSE}",  # 20 a second, 450 MB an epoch, two parts a call
        rf"\b{COUNTED} an? {UNIT}{CLAUSE}",  # frames a second
        rf"\b(?:an?|one)(?: {ONE_OF})? an? {UNIT}{CLAUSE}",  # a row an image, one loss a pixel, one a source
        rf"\bPNG a metre{CLAUSE}",  # value in a depth PNG a metre
        rf"` an? {UNIT}{CLAUSE}",  # `<folder> <frame>` a line
    ]
)


def found_in(text: str, *, for_users: bool = False) -> list[str]:
    """What a reader would stumble over in a text, each with what to say instead."""
    text = re.sub(r"\s+", " ", text)
    listed = PHRASES | (INNER if for_users else {})
    found = [(match[0], say) for phrase, say in listed.items() for match in re.finditer(rf"\b(?:{phrase})\b", text, re.IGNORECASE)]
    found += [(match[0], "a sentence with the subject first") for match in re.finditer(INVERSION, text)]
    found += [(match[0], "per") for match in re.finditer(PER, text)]
    return [f"{said!r}, say: {say}" for said, say in found]


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string, docstring and run of comment lines of Python; an f-string's fields are ``{}``."""
    yield from strings_in(ast.parse(source))
    begun, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] > begun + len(lines):
            yield begun, " ".join(lines)
            lines = []
        begun = begun if lines else token.start[0]
        lines.append(token.string.lstrip("# "))
    yield begun, " ".join(lines)


def strings_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            for part in node.values:
                yield from strings_in(part)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        else:
            yield from strings_in(node)


def helps(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    context = click.Context(command, parent=parent, info_name=name.rpartition(" ")[2], terminal_width=1000, max_content_width=1000)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            yield from helps(f"{name} {inner}", found, context)


def files(patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in PROJECT.glob(pattern)})


@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program: str) -> None:
    (entry,) = entry_points(group="console_scripts", name=program)
    found = dict(helps(program, entry.load()))
    assert len(found) >= (15 if program == "md-data" else 1)
    assert [f"{name}: {fault}" for name, text in found.items() for fault in found_in(text, for_users=True)] == []


@pytest.mark.parametrize("room", READ)
def test_messages_docstrings_and_comments(room: str) -> None:
    paths = sorted((PROJECT / room).rglob("*.py"))
    assert len(paths) >= 4
    faults = [
        f"{path.relative_to(PROJECT)}:{line}: {fault}"
        for path in paths
        for line, text in texts_of(path.read_text(encoding="utf-8"))
        for fault in found_in(text)
    ]
    assert faults == []


def test_templates() -> None:
    assert len(files(TEMPLATES)) >= 10
    faults = [f"{path.relative_to(PROJECT)}: {fault}" for path in files(TEMPLATES) for fault in found_in(path.read_text(encoding="utf-8"))]
    assert faults == []


@pytest.mark.parametrize("page", [str(path.relative_to(PROJECT)) for path in files(PAGES)])
def test_pages(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    faults = [
        f"{page}:{text.count(chr(10), 0, paragraph.start()) + 1}: {fault}"
        for paragraph in re.finditer(r"\S.*?(?=\n\s*\n|\s*\Z)", text, re.DOTALL)
        for fault in found_in(paragraph[0], for_users=page not in FOR_CONTRIBUTORS)
    ]
    assert faults == []


@pytest.mark.parametrize(
    "text",
    [
        "Where DALI has no build, the loader's twin without it gives the same batches.",
        "every warp loses to 'nothing moved'",
        "`none` too where a short run would not repay the making",
        "the share of time that training stands still for want of data",
        "`--image_topic` and the like say otherwise.",
        "Interrupted, the same command resumes where it was.",
        "what is done is kept; the same command goes on from there",
        "builds its engine once a file and batch size",
        "Value in a depth PNG a metre",
        "One loss a pixel from one a source",
        "every so-manieth pixel",
        "A batch's errand.",
        "the rest is let be",
        "It believes to be within an update; told its own scale anew, it begins another.",
        "the list is looked through first",
        "what is chosen by one of the lists is not judged by the other",
        "Several times a second",
        "(one `<folder> <frame> <side l or r>` a line).",
        "10.0 frames a second",
        "20 a second, of which 10 are taken",
        "a run takes 450 MB an epoch",
        "not compiled, 2 parts a batch",
        "one update a call",
        "| where it fails | a row an image |",
        "the depths of a video are written\n    once a frame",
    ],
)
def test_what_is_hard_to_read_is_found(text: str) -> None:
    assert found_in(text, for_users=True)


@pytest.mark.parametrize(
    "text",
    [
        "An interrupted build resumes when you repeat the command.",
        "Builds its engine once per file and batch size.",
        "It takes half a second, or half a pixel of the image.",
        "The table of the frames a sequence holds.",
        "Sixteen bits a camera uses.",
        "Once a run has ended, its files stay.",
        "Neither a file nor a folder.",
        "As on a GPU a step is captured.",
        "Two a.m.; 1 a-frame.",
        "One moving camera, one image.",
        "Neighbours about a metre apart.",
        "It needs a model trained with stereo.",
        "What a user can mend is one line.",
        "twice a frame's size",
        "Indeed, the camera moves.",
        "the frames looked for; the places it looks in",
        "squares of 3x3 are drawn; a factor is drawn from U[1 - s, 1 + s]",
        "As the twin (a second implementation) of a function.",
    ],
)
def test_what_reads_well_is_left_alone(text: str) -> None:
    assert found_in(text) == []


def test_words_of_the_code_are_for_contributors() -> None:
    assert found_in("the twin and its parcel", for_users=True)
    assert not found_in("the twin and its parcel")


def test_every_text_of_python_is_read() -> None:
    source = '"""Doc."""\n# one\n# two\nx = f"a {y + \'inner\'} b" "c"  # side\n\n# last\n'
    assert sorted(text for _, text in texts_of(source)) == ["Doc.", "a {} bc", "inner", "last", "one two side"]
