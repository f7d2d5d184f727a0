"""Every command and every Python block of README.md, CONTRIBUTING.md and docs/ runs, in the order of its page, on small data."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import RUN, SHOWN, Place, all_lines, blocks, named_commands, pages, rule_of, run_page, shorten_training
from documented_data import SmallData, kitti_archives, shorten_lists
from kitti_server import Server
from serving import serving


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData(tmp_path_factory.mktemp("documented"))


@pytest.fixture
def archives_url() -> Iterator[str]:
    server = Server()
    server.files = kitti_archives()
    with serving(server):
        yield server.url


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_data: SmallData, archives_url: str) -> Iterator[Place]:
    """An empty current folder, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    loaded = set(sys.modules)
    shorten_lists(monkeypatch)
    shorten_training(monkeypatch)
    small_data.fill_cache()
    yield Place(tmp_path, small_data, archives_url, {"__name__": "__main__"})
    for name in set(sys.modules) - loaded:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.parametrize("page", pages())
def test_every_command_runs(page: str, place: Place) -> None:
    run_page(page, place)


@pytest.mark.parametrize("page", pages())
def test_every_line_is_run_or_checked_by_a_rule(page: str) -> None:
    assert {block.language for block in blocks(page)} <= {*RUN, *SHOWN}
    for line in all_lines(page):
        rule_of(line)


@pytest.mark.parametrize("page", pages())
def test_commands_in_the_text_are_right_in_form(page: str, place: Place) -> None:
    for rule, line in named_commands(page):
        rule.apply(line, place)


def test_a_layout_of_ones_own_takes_few_lines() -> None:
    (source,) = (block.text for block in blocks("docs/own_data.md") if block.text.startswith("# my_robot.py"))
    assert len(source.splitlines()) <= 30
