"""What the documentation tells its readers to type: the blocks of its pages, what kind each line is, and how it is run or checked here.

A line of a ``bash`` block is run as it stands, in the page's order, or, where this machine cannot run it, checked in form by a
named rule. A ``python`` block is run too, or written to the file that its first line names. What turns minutes of training into seconds is
appended here.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner, Result
from documented_data import SmallData
from places import PROJECT

from dataload.commands.md_data import md_data
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from engine.training.config import TrainConfig
from export.commands.md_export import md_export
from export.commands.md_predict import md_predict
from export.targets.web import PACKAGE
from splits import read_lines

COMMANDS: dict[str, click.Command] = {
    "md-train": md_train,
    "md-eval": md_eval,
    "md-export": md_export,
    "md-predict": md_predict,
    "md-data": md_data,
}
# What makes a training of minutes one of seconds, behind what the page says.
TRAIN_LESS = {
    "height": 64,
    "width": 96,
    "num_layers": 18,
    "batch_size": 2,
    "max_steps": 1,
    "weights_init": "scratch",
    "no_cuda": True,
    "num_workers": 0,
}
# Cameras of images twenty times as wide as those here; as many processes as the short lists have batches for.
SMALLER = {"1050 1050 959.5 539.5": "52 52 47.5 31.5", "--world_size 64": "--world_size 4"}
# Languages of blocks: those that are run, and those that show output or a file's content.
RUN, SHOWN = ("bash", "python"), ("text", "yaml", "json", "bibtex", "xml", "ini", "toml", "html", "js", "cmake", "cpp")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
FILE_LINE = re.compile(r"# (?P<name>\w+\.py)\b")


class Block(NamedTuple):
    """A block of a page: its language, the number of its first line, its text."""

    language: str
    line: int
    text: str


class Line(NamedTuple):
    """A command of a page, its continued lines joined, and where it stands."""

    page: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: {self.text}"


def pages() -> list[str]:
    """The pages that a user reads, by their paths in the repository."""
    # The pages of the API hold no commands: they are made of docstrings.
    found = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"]
    found += [path for folder in ("docs", "examples") for path in sorted((PROJECT / folder).glob("*.md"))]
    return [path.relative_to(PROJECT).as_posix() for path in found]


def blocks(page: str) -> list[Block]:
    """The blocks of a page in its order."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    return [
        Block(
            found["language"].strip(), text.count("\n", 0, found.start()) + 2, re.sub(rf"^{found['indent']}", "", found["text"], flags=re.M)
        )
        for found in FENCE.finditer(text)
    ]


def lines(page: str, block: Block) -> Iterator[Line]:
    """The commands of a ``bash`` block."""
    started, joined = 0, ""
    for number, text in enumerate(block.text.splitlines(), start=block.line):
        started = started if joined else number
        joined += text.removesuffix("\\")
        if text.endswith("\\"):
            continue
        command = joined.partition(" # ")[0].strip()
        joined = ""
        if command and not command.startswith("#"):
            yield from (Line(page, started, part.strip()) for part in command.split("&&"))


def all_lines(page: str) -> list[Line]:
    """All commands of a page."""
    return [line for block in blocks(page) if block.language == "bash" for line in lines(page, block)]


class Place(NamedTuple):
    """Where a page's commands are run: its folder, the data, a server of KITTI's archives, and the names its Python blocks have made."""

    folder: Path
    data: SmallData
    archives_url: str
    names: dict[str, Any]


def run_page(page: str, place: Place) -> dict[str, str]:
    """Run or check every block of a page in its order; what each of its commands said, by the command."""
    said = {}
    for block in blocks(page):
        if block.language == "bash":
            for line in lines(page, block):
                said[line.text] = rule_of(line).apply(line, place)
        elif block.language == "python":
            run_python(page, block, place)
    return said


def run_python(page: str, block: Block, place: Place) -> None:
    """Run a block, or write it to the file that its first line names."""
    named = FILE_LINE.match(block.text)
    if named:
        (place.folder / named["name"]).write_text(block.text)
        return
    place.data.provide(block.text, place.folder)
    # Empty lines before it, so that a fault names the page's line.
    exec(compile("\n" * (block.line - 1) + block.text, str(PROJECT / page), "exec"), place.names)


def invoke(line: Line, place: Place, *more: str) -> str:
    """Run one of our commands in the current folder, patterns expanded as a shell does; returns what it says."""
    place.data.provide(line.text, place.folder)
    result = call(line, *more)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


def call(line: Line, *more: str) -> Result:
    """One of our commands, as it ended."""
    text, _, target = line.text.partition(" > ")
    for documented, smaller in SMALLER.items():
        text = text.replace(documented, smaller)
    settings, words = environment(shlex.split(text))
    name, *given = words
    # A quoted pattern is the command's own.
    quoted = re.findall(r"'([^']*)'", text)
    expanded = [part for word in given for part in (sorted(map(str, Path().glob(word))) if "*" in word and word not in quoted else [word])]
    home = [str(Path(word).expanduser()) if word.startswith("~") else word for word in expanded]
    result = CliRunner().invoke(COMMANDS[name], [*home, *more], env=settings)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise AssertionError(str(line)) from result.exception
    if target:
        Path(target).write_text(result.stdout)
    return result


def environment(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The settings in front of a command, ``OMP_NUM_THREADS=1 md-train``, and the command."""
    settings = {}
    while words and re.match(r"[A-Z][A-Z0-9_]*=", words[0]):
        name, _, value = words[0].partition("=")
        settings[name], words = value, words[1:]
    return settings, words


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """Another current folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# What is run.


def run_train(line: Line, place: Place) -> str:
    """A training of a step, which leaves weights."""
    if "--dry_run" in line.text:
        return invoke(line, place)
    said = invoke(line, place, *(word for name, value in TRAIN_LESS.items() for word in (f"--{name}", str(value)) if word != "True"))
    run = Path(option(line, "--log_dir", "~/tmp")).expanduser() / option(line, "--model_name", TrainConfig.model_name)
    assert list(run.glob("models/*/encoder.pth")), f"{line}\n{said}"
    return said


def shorten_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``TrainConfig.from_options`` make short runs, as ``run_train`` does."""
    as_given = TrainConfig.from_options
    monkeypatch.setattr(TrainConfig, "from_options", lambda **options: as_given(**options | TRAIN_LESS))


def run_torchrun(line: Line, place: Place) -> str:
    """Two processes of this machine that train for a step, or evaluate; by torchrun, as processes have to be."""
    place.data.provide(line.text, place.folder)
    text = re.sub(r"--nproc_per_node \S+", "--nproc_per_node 2", line.text)
    _, command, _ = torchrun_words(text)
    if command == "md-train":
        text += "".join(f" --{name}" + ("" if value is True else f" {value}") for name, value in TRAIN_LESS.items())
    if "kitti_data" in text:
        text += f" --{'split' if command == 'md-train' else 'eval_split'} {short_split(place)}"
    settings = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT), "TQDM_DISABLE": "1"}
    done = subprocess.run(
        ["bash", "-c", text], cwd=place.folder, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=300
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{line}\n{said}"
    assert ("Processes   2" if command == "md-train" else "abs_rel") in said, f"{line}\n{said}"
    return said


def short_split(place: Place) -> Path:
    """A folder with the shortened lists, which other processes would not have otherwise."""
    folder = place.folder / "short_lists"
    folder.mkdir(exist_ok=True)
    for subset, name in (("train", "eigen_zhou"), ("val", "eigen_zhou"), ("test", "eigen")):
        (folder / f"{subset}_files.txt").write_text("\n".join(read_lines(name, subset)) + "\n")
    return folder


def run_eval(line: Line, place: Place) -> str:
    """An evaluation, which shows scores, but of what a server scores."""
    said = invoke(line, place)
    if not re.search(r"--no_eval|--eval_split benchmark", line.text):
        assert "abs_rel" in said or "Trajectory error" in said, f"{line}\n{said}"
    return said


def run_check(line: Line, place: Place) -> str:
    """A check of data in which nothing is amiss."""
    said = invoke(line, place)
    assert said.splitlines()[-1].startswith("ready"), f"{line}\n{said}"
    return said


def run_command(line: Line, place: Place) -> str:
    """A command that leaves what its --out names."""
    said = invoke(line, place)
    out = option(line, "--out", "")
    assert not out or Path(out).expanduser().exists(), f"{line}\n{said}"
    return said


def option(line: Line, name: str, default: str) -> str:
    """The value of an option in a line."""
    words = shlex.split(line.text)
    return words[words.index(name) + 1] if name in words else default


def run_in_shell(line: Line, place: Place) -> str:
    """What handles files, with a shell."""
    place.data.provide(line.text, place.folder)
    done = subprocess.run(["bash", "-c", line.text], cwd=place.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def run_download(line: Line, place: Place) -> str:
    """KITTI's archives from a server of this machine, into a folder of their own: the page's ``kitti_data`` is there already."""
    folder = place.folder / "fetched"
    said = in_folder(folder, line, "--base_url", place.archives_url)
    assert not list(folder.rglob("*.zip*")), f"{line}\n{said}"
    return said


def run_jpeg(line: Line, place: Place) -> str:
    """Convert what was downloaded; no PNG is left where they are to go."""
    folder = place.folder / "fetched"
    if not (folder / "kitti_data").is_dir():
        run_download(line._replace(text="md-data download kitti --data_path kitti_data --split eigen"), place)
    said = in_folder(folder, line)
    made = list(folder.rglob("image_0?/data/*.jpg"))
    assert made, line
    assert f"{len(made)} JPEGs made" in said, f"{line}\n{said}"
    assert "--delete" not in line.text or not list(folder.rglob("image_0?/data/*.png")), line
    return said


def in_folder(folder: Path, line: Line, *more: str) -> str:
    """Run one of our commands in another folder."""
    folder.mkdir(exist_ok=True)
    with chdir(folder):
        result = call(line, *more)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


def refuse_webcam(line: Line, place: Place) -> str:
    """Where there is no webcam, the command says so."""
    place.data.provide(line.text, place.folder)
    result = call(line)
    assert result.exit_code != 0, line
    assert "webcam 0" in result.output, f"{line}\n{result.output}"
    return result.output


# What is checked in form.


def known_packages() -> set[str]:
    """Every package that setup.py names, and its extras."""
    return set(re.findall(r"""["']([A-Za-z][\w-]*)(?:\[\w+\])?(?:[<>=].*?)?["']""", (PROJECT / "setup.py").read_text()))


def extras() -> set[str]:
    """The extras that setup.py declares."""
    for node in ast.parse((PROJECT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "EXTRAS":
            assert isinstance(node.value, ast.Dict)
            return {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    raise AssertionError("setup.py has no EXTRAS")


def check_pip(line: Line, place: Place) -> str:
    """The extras exist, the packages are those that setup.py names."""
    words = shlex.split(line.text)
    words = words[words.index("pip") + 1 :]
    assert words[0] in ("install", "uninstall"), line
    for word in [word for word in words[1:] if not word.startswith("-")]:
        package, _, extra = word.rstrip("]").partition("[")
        if package == ".":
            assert not extra or set(extra.split(",")) <= extras(), f"{line}: no such extra"
        else:
            name = re.split("[<>=]", package)[0]
            assert name in known_packages() | {"pip", "pre-commit", "uv"}, f"{line}: setup.py does not name {name}"
    return ""


def check_make(line: Line, place: Place) -> str:
    """The targets and variables exist."""
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets
    for word in shlex.split(line.text)[1:]:
        name, is_setting, _ = word.partition("=")
        assert f"\n{name} ?=" in makefile if is_setting else name in targets[1].split(), f"{line}: the Makefile has no {name}"
    return ""


def check_module(line: Line, place: Place) -> str:
    """The module exists and its options parse."""
    _, words = environment(shlex.split(line.text.partition(" > ")[0]))
    module = words[words.index("-m") + 1]
    if module == "benchmarks.table" or module.startswith("benchmarks."):
        path = PROJECT / (module.replace(".", "/") + ".py")
        assert path.is_file(), f"{line}: there is no {module}"
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        # Options are one another's neighbours in the module or in what all benchmarks share.
        text = path.read_text() + (PROJECT / "benchmarks" / "harness.py").read_text()
        assert {option for option in options if f'"{option}"' not in text} == set(), f"{line}: no such option"
    elif module == "pytest":
        for word in words[words.index("pytest") + 1 :]:
            assert word.startswith("-") or (PROJECT / word.partition("::")[0]).exists(), f"{line}: there is no {word}"
    else:
        assert module in ("venv", "http.server"), line
    return ""


def check_script(line: Line, place: Place) -> str:
    """The script is there; the tests of examples run it."""
    _, words = environment(shlex.split(line.text))
    assert (PROJECT / words[1]).is_file(), f"{line}: there is no {words[1]}"
    return ""


def check_npm(line: Line, place: Place) -> str:
    """The package is the one that the page in the browser is made with."""
    assert shlex.split(line.text)[2] == PACKAGE, line
    return ""


def check_shape(line: Line, place: Place) -> str:
    """Nothing beyond its shape, which the rule's pattern says."""
    return ""


def check_options(line: Line, place: Place) -> str:
    """Each option is one of the command's."""
    _, words = environment(shlex.split(line.text))
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given - set(options_of(COMMANDS[words[0]])) == set(), f"{line}: no such option"
    return ""


def torchrun_words(text: str, **variables: str) -> tuple[list[str], str, list[str]]:
    """torchrun's options, the command that it starts, and that command's options; the shell's variables have these values."""
    text = re.sub(r"\$\(which ([\w-]+)\)", r"which:\1", text).replace('"$@"', "")
    text = re.sub(r"\$\{?(\w+)\}?", lambda found: variables[found[1]], text)
    _, words = environment(shlex.split(text))
    assert words[0] == "torchrun", text
    (program,) = [word for word in words if word.startswith("which:")]
    place, command = words.index(program), program.removeprefix("which:")
    assert command in COMMANDS, f"{text}: {command} is none of our commands"
    return words[1:place], command, words[place + 1 :]


def check_torchrun(text: str, **variables: str) -> tuple[argparse.Namespace, dict[str, Any]]:
    """What torchrun's own parser and the command's make of a line; fails where one of them refuses it."""
    from torch.distributed.run import get_args_parser

    options, command, given = torchrun_words(text, **variables)
    parser = get_args_parser()
    # No abbreviations, which another version may take for something else.
    parser.allow_abbrev = False
    try:
        launched = parser.parse_args([*options, command, *given])
        with COMMANDS[command].make_context(command, list(given)) as context:
            return launched, dict(context.params)
    except (SystemExit, click.ClickException) as error:
        raise AssertionError(f"{text}: {error}") from error


def check_sbatch(line: Line, place: Place) -> str:
    """What follows the script's name are options of md-train."""
    return check_options(line._replace(text=line.text.replace("sbatch examples/slurm.sh", "md-train")), place)


def check_several_machines(line: Line, place: Place) -> str:
    """torchrun and the command take the options."""
    check_torchrun(line.text)
    return ""


def options_of(command: click.Command) -> Iterator[str]:
    """The long options of a command and of those below it."""
    yield "--help"
    for parameter in command.params:
        yield from (name for name in parameter.opts if name.startswith("--"))
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        yield from options_of(below)


class Rule(NamedTuple):
    """What is done with the lines that its pattern matches."""

    name: str
    pattern: str
    apply: Callable[[Line, Place], str]


SETTINGS = r"(?:[A-Z][A-Z0-9_]*=\S+ )*"
PYTHON = rf"{SETTINGS}(?:\.venv/bin/)?python3? "
# The first that matches says what is done with a line.
RULES = (
    Rule("no webcam", r"md-predict .*--image 0\b", refuse_webcam),
    Rule("train", rf"{SETTINGS}md-train\b", run_train),
    Rule("several machines", rf"{SETTINGS}torchrun .*--nnodes\b", check_several_machines),
    Rule("torchrun", rf"{SETTINGS}torchrun\b", run_torchrun),
    Rule("sbatch", r"sbatch examples/slurm\.sh ", check_sbatch),
    Rule("kubectl", r"kubectl apply -f examples/kubernetes\.yaml$", check_shape),
    Rule("download", r"md-data download\b", run_download),
    Rule("convert", r"md-data jpeg\b", run_jpeg),
    Rule("check", r"md-data check\b", run_check),
    Rule("evaluate", rf"{SETTINGS}md-eval\b", run_eval),
    Rule("command", rf"{SETTINGS}md-(data|export|predict)\b", run_command),
    Rule("files", r"(mkdir|cp|mv|ls|cat|head) ", run_in_shell),
    Rule("pip", rf"({PYTHON}-m |uv )?pip (un)?install\b", check_pip),
    Rule("make", r"make\b", check_make),
    Rule("module", rf"{PYTHON}-m ", check_module),
    Rule("script", rf"{PYTHON}examples/\w+\.py\b", check_script),
    Rule("npm", r"npm pack ", check_npm),
    Rule("clone", r"git clone (https://\S+|\S+\.git)( \S+)?$", check_shape),
    Rule("folder", r"cd \S+$", check_shape),
    Rule("environment", r"(source|\.) \.venv/bin/activate$", check_shape),
    # Evaluated by a real bash in test_bash_completion.
    Rule("completion", r"for c in .*_COMPLETE=bash_source", check_shape),
    Rule("tensorboard", r"tensorboard --logdir \S+$", check_shape),
)


# What is done with commands in the text of a page, which stand there for their names' sake.
FORM_RULES = (
    Rule("options", r"md-(train|eval|export|predict|data)\b", check_options),
    *(rule for rule in RULES if rule.name in ("pip", "make", "module", "script", "npm")),
)


def named_commands(page: str) -> Iterator[tuple[Rule, Line]]:
    """The commands in the text of a page, and what is done with them."""
    text = FENCE.sub(lambda found: "\n" * found[0].count("\n"), (PROJECT / page).read_text(encoding="utf-8"))
    for found in re.finditer(r"`([^`\n]+)`", text):
        for command in map(str.strip, found[1].split("&&")):
            for rule in FORM_RULES:
                if re.match(rule.pattern, command):
                    yield rule, Line(page, text.count("\n", 0, found.start()) + 1, command)


def rule_of(line: Line) -> Rule:
    """The rule for a line; an unknown kind of line is a fault of the page or of ``RULES``."""
    for rule in RULES:
        if re.match(rule.pattern, line.text):
            return rule
    raise AssertionError(f"{line}\nis of no kind that is run or checked; see RULES in {Path(__file__).name}")
