"""What a project has beside its code: one version in all places, and files that other programs read."""

import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
import yaml
from places import PROJECT

from splits.version import DISTRIBUTION

RELEASE = re.compile(r"^## \[(?P<version>\d+\.\d+\.\d+)\] - (?P<date>\d{4}-\d{2}-\d{2})$", re.MULTILINE)
# The headings that Keep a Changelog knows; a topic may follow.
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
FORMS = ("bug.yml", "question.yml")


def read_yaml(name: str) -> Any:
    return yaml.safe_load((PROJECT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def changelog() -> str:
    return (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_one_version_everywhere(changelog: str) -> None:
    released = RELEASE.search(changelog)
    assert released is not None
    in_setup = subprocess.run([sys.executable, "setup.py", "--version"], cwd=PROJECT, capture_output=True, text=True, check=True)
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == released["version"] == in_setup.stdout.split()[-1]
    assert version(DISTRIBUTION) == released["version"], "another version is installed: pip install --editable . once more"
    assert citation["date-released"] == released["date"]


def test_the_changelog_is_kept_in_its_form(changelog: str) -> None:
    headings = re.findall(r"^## .*$", changelog, re.MULTILINE)
    releases = [found.group() for found in RELEASE.finditer(changelog)]
    assert [heading for heading in headings if heading != "## [Unreleased]"] == releases
    dates = [found["date"] for found in RELEASE.finditer(changelog)]
    assert dates == sorted(dates, reverse=True)
    assert all(kind.partition(":")[0] in KINDS for kind in re.findall(r"^### (.*)$", changelog, re.MULTILINE))


def test_the_citation_names_what_it_must() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == DISTRIBUTION
    assert all(citation[key] for key in ("message", "authors"))
    for reference in citation["references"]:
        assert reference["type"] in ("article", "conference-paper")
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])
        assert reference["title"]


def test_the_workflow_runs_what_everybody_can_run() -> None:
    workflow = read_yaml(".github/workflows/ci.yml")
    steps = workflow["jobs"]["checks"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert (PROJECT / ".ci" / "run").stat().st_mode & 0o111


def test_pre_commit_runs_the_checks_of_make_lint() -> None:
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert (repository["repo"], hook["language"], hook["pass_filenames"]) == ("local", "system", False)
    command = hook["entry"].split()
    shown = subprocess.run([*command, "--dry-run", "--assume-old=setup.py"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for check in ("ruff format --check .", "ruff check .", "mypy", "lint-imports"):
        assert re.search(rf"/{re.escape(check)}$", shown, re.MULTILINE), check


@pytest.mark.parametrize("name", FORMS)
def test_a_form_for_issues_asks_for_the_doctors_report(name: str) -> None:
    form = read_yaml(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= form.keys()
    labels = [part["attributes"]["label"] for part in form["body"]]
    assert any("md-data doctor --json" in label for label in labels)
    assert len({part["id"] for part in form["body"]}) == len(labels)
    assert all(part["type"] in ("textarea", "input", "dropdown", "checkboxes") for part in form["body"])
