"""Which versions serve: what make test-oldest installs, and what docs/troubleshooting.md says, are setup.py's bounds."""

import re
import sys
from importlib.metadata import PackageNotFoundError, PathDistribution, version
from pathlib import Path

import pytest
from oldest import SETUP, lower_bounds
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from places import PROJECT

PAGE = PROJECT / "docs" / "troubleshooting.md"
ROW = re.compile(r"^\| `(?P<name>[\w-]+)` \| (?P<oldest>[\d.]+) \|", re.MULTILINE)
# Compiled where it is installed, in the place of Pillow: its versions are not compared.
ANY_VERSION = {"pillow-simd"}


@pytest.fixture(scope="module")
def requirements(installed: Path) -> list[Requirement]:
    """All that the wheel asks for, the extras' too."""
    return [Requirement(text) for text in PathDistribution(next(installed.glob("*.dist-info"))).requires or []]


def test_each_requirement_has_a_lower_bound_that_is_pinned(requirements: list[Requirement]) -> None:
    bounds = {canonicalize_name(name): version for name, version in lower_bounds().items()}
    assert {canonicalize_name(each.name) for each in requirements} - ANY_VERSION == set(bounds)
    for each in requirements:
        assert each.name in ANY_VERSION or SpecifierSet(f">={bounds[canonicalize_name(each.name)]}") in [
            SpecifierSet(str(bound)) for bound in each.specifier if bound.operator == ">="
        ]


def test_what_is_installed_is_within_the_bounds(requirements: list[Requirement]) -> None:
    outside = []
    for each in requirements:
        try:
            found = version(each.name)
        except PackageNotFoundError:
            continue
        if not each.specifier.contains(found, prereleases=True):
            outside.append(f"{each.name} {found}")
    assert outside == []


def test_the_page_names_the_oldest_of_each_requirement_of_all_users(requirements: list[Requirement]) -> None:
    everyone = {each.name for each in requirements if each.marker is None or "extra" not in str(each.marker)}
    shown = {row["name"]: row["oldest"] for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))}
    bounds = lower_bounds()
    assert shown == {name: bounds[name] for name in everyone}


def test_the_page_names_the_pythons_of_the_package() -> None:
    text = SETUP.read_text(encoding="utf-8")
    pythons = sorted(re.findall(r"Python :: (3\.\d+)", text), key=Version)
    assert f'python_requires=">={pythons[0]}"' in text
    for page in ("docs/troubleshooting.md", "docs/first_steps.md", "README.md"):
        assert f"Python {pythons[0]} to {pythons[-1]}" in (PROJECT / page).read_text(encoding="utf-8"), page
    assert sys.version_info[:2] >= Version(pythons[0]).release


def test_make_installs_the_pinned_releases_in_an_environment_of_their_own() -> None:
    rule = (PROJECT / "Makefile").read_text(encoding="utf-8").split("$(OLDEST)/.installed:")[1].split("\n\n")[0]
    assert "tests/support/oldest.py > $(OLDEST)/constraints.txt" in rule
    assert "--constraint $(OLDEST)/constraints.txt --editable '.[test]'" in rule
