"""One field is one option: the page, the checks, the saved form and its way back follow from it, whatever its type."""

import json
from dataclasses import MISSING, dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dataload.commands.options import GroupedCommand, config_options
from dataload.given import read_option
from dataload.option import annotations_of, check_options, config_from, default_of, option, options_of, saved_values
from engine.commands.md_train import CONFIGS, md_train
from splits.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Everything:
    """An option of each kind."""

    whole: int = option(3, "A count.", heading="Numbers", least=1, resumable=True)
    real: float = option(0.5, "A share.", heading="Numbers", above=0, name="share")
    maybe: float | None = option(None, "Worked out.", heading="Numbers", default_help="half of it", least=0)
    many: tuple[int, ...] = option((0, -1, 1), "Offsets.", heading="Numbers", metavar="ID...")
    chosen: int = option(18, "One of them.", heading="Words", choices=(18, 34))
    word: str = option("auto", "A word.", heading="Words", choices=("auto", "off"))
    several: tuple[str, ...] = option(("a",), "Some.", heading="Words", choices=("a", "b"))
    place: Path | None = option(None, "A folder.", heading="Words")
    flag: bool = option(False, "On.", heading="Switches")
    automask: bool = option(True, "Off.", heading="Switches", name="no_automask", switch=(True, False))
    ending: str = option(".jpg", "The other one.", heading="Switches", name="png", switch=(".jpg", ".png"))
    three: bool | None = option(None, "Yes, no, or as it comes.", heading="Switches", default_help="as it comes")
    resume: bool = option(False, "Not kept.", heading="Switches", saved=False)
    again: bool = option(False, "Once more.", heading="Switches", word="if_needed", saved=False)
    derived: int = 7

    def __post_init__(self) -> None:
        check_options(self)


def parse(*args: str) -> tuple[Everything | None, Result]:
    """The config that a page of these options makes of arguments, and how it ended."""
    made: list[Everything] = []

    @click.command(cls=GroupedCommand)
    @config_options(Everything, headings=("Switches", "Numbers", "Words"))
    def page(**options: object) -> None:
        made.append(config_from(Everything, options))

    result = CliRunner().invoke(page, list(args))
    return (made[0] if made else None), result


GIVEN = (
    "--whole 5 --share 0.25 --maybe 2 --many 0 -2 2 --chosen 34 --word off --several b a --place x/y --flag --no_automask --png --no_three"
)
EXPECTED = Everything(
    whole=5, real=0.25, maybe=2.0, many=(0, -2, 2), chosen=34, word="off", several=("b", "a"), place=Path("x/y"), flag=True, automask=False,
    ending=".png", three=False,
)  # fmt: skip


def test_nothing_given_is_the_default_and_all_given_is_what_was_given() -> None:
    assert parse()[0] == Everything()
    assert parse(*GIVEN.split())[0] == EXPECTED


@pytest.mark.parametrize(
    ("args", "again"),
    [("", False), ("--again", True), ("--again --flag", True), ("--flag --again", True), ("--again if_needed --flag", "if_needed")],
)
def test_a_word_may_follow_a_flag(args: str, again: bool | str) -> None:
    config, result = parse(*args.split())
    assert config is not None, result.output
    assert (config.again, config.flag) == (again, "--flag" in args)


def test_the_page_shows_names_defaults_and_headings_in_their_order() -> None:
    shown = " ".join(parse("--help")[1].output.split())
    assert shown.index("Switches:") < shown.index("Numbers:") < shown.index("Words:")
    for piece in ("--share FLOAT A share. [default: 0.5]", "Worked out. [default: half of it]", "--many ID... Offsets. [default: 0 -1 1]",
                  "--chosen [18|34]", "--three / --no_three", "--png",
                  "--again [if_needed] Once more. Numbers:"):  # fmt: skip
        assert piece in shown
    assert "derived" not in shown


@pytest.mark.parametrize("config", [Everything(), EXPECTED], ids=["defaults", "given"])
def test_what_is_saved_comes_back(config: Everything) -> None:
    saved = json.loads(json.dumps(saved_values(config)))
    assert set(saved) == {entry.name for _, entry in options_of(Everything)} - {"resume", "again"}
    back = {
        entry.name: read_option(saved[entry.name], entry, annotations_of(Everything)[each.name], default_of(each, entry))
        for each, entry in options_of(Everything)
        if entry.saved
    }
    assert config_from(Everything, back) == config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--whole 0", "whole=0 must be at least 1"),
        ("--share 0", "share=0.0 must be above 0"),
        ("--share inf", "share=inf must be a finite number"),
        ("--maybe -1", "maybe=-1.0 must be 0 or more"),
        ("--several a c", "several=c is unknown; choose from a, b"),
        ("--chosen 50", "'50' is not one of '18', '34'"),
        ("--many 0 x", "must be int values"),
        ("--again never", "only 'if_needed' may follow it, not 'never'"),
        ("--shar 1", "did you mean --share?"),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name_on_the_page(args: str, message: str) -> None:
    config, result = parse(*args.split())
    assert config is None
    assert message in " ".join(result.output.split())


def test_a_config_checks_itself_without_a_page() -> None:
    with pytest.raises(InputError, match="whole=0 must be at least 1"):
        Everything(whole=0)


def test_every_option_of_training_is_on_the_page_of_md_train_with_its_default() -> None:
    options = md_train.make_context("md-train", []).params
    for cls in CONFIGS:
        for each, entry in options_of(cls):
            if entry.default_help is None and each.default is not MISSING:
                value = options[entry.name] if entry.switch is None else entry.switch[options[entry.name]]
                assert value == each.default, entry.name
            else:
                assert options[entry.name] is None, entry.name


def test_no_two_options_of_training_share_a_name() -> None:
    names = [entry.name for cls in CONFIGS for _, entry in options_of(cls)]
    assert len(names) == len(set(names))
