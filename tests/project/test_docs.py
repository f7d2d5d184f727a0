"""The documentation: it builds strictly, without a network; its links lead somewhere; every public name has an entry and an explanation."""

import importlib
import inspect
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import FENCE, pages
from places import PROJECT, ROOMS

API_PAGES = [f"docs/api/{room}.md" for room in ROOMS]
# What a browser loads by itself, as against links that a reader follows.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)[^>]*\ssrc="(https?:)?//|<link(?![^>]*rel="canonical")[^>]*\shref="(https?:)?//"""
)
LINK = re.compile(r"\]\((?P<address>[^)\s]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it, in a temporary folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_site_is_built(site: Path) -> None:
    for page in pages():
        name = {"README": "index"}.get(Path(page).stem, Path(page).stem.lower())
        assert (site / f"{name}.html").is_file()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    found = {path.name: LOADED.search(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert {name: match[0] for name, match in found.items() if match} == {}


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", (PROJECT / page).read_text(encoding="utf-8"))


def anchors(path: Path) -> Iterator[str]:
    """The anchors of a page's headings, as a repository's web page makes them; a second heading of that name gets a number."""
    counts: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.*?)(?: #+)?$", prose(path.relative_to(PROJECT).as_posix()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = counts[slug] = counts.get(slug, -1) + 1
        yield f"{slug}-{number}" if number else slug


@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md", "SECURITY.md", *API_PAGES])
def test_links_lead_somewhere(page: str) -> None:
    dead = []
    for address in LINK.findall(re.sub(r"`[^`\n]*`", "`", prose(page))):
        if re.match(r"[a-z]+:", address):
            continue
        name, _, anchor = address.partition("#")
        target = (PROJECT / page).parent / name if name else PROJECT / page
        if not target.exists() or (anchor and anchor not in set(anchors(target.resolve()))):
            dead.append(address)
    assert dead == []


def public(room: str) -> dict[str, object]:
    """The public names of a room and what they are."""
    module = importlib.import_module(room)
    return {f"{room}.{name}": getattr(module, name) for name in module.__all__ if name != "__version__"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_entry(room: str, site: Path) -> None:
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"zlib.\n", 1)[1]).decode()
    entries = {line.split()[0] for line in inventory.splitlines()}
    assert public(room).keys() - entries == set()
    shown = re.findall(r"^::: (\S+)$", (PROJECT / "docs" / "api" / f"{room}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(public(room))


def test_an_option_is_shown_with_its_default_alone(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api" / "engine.html").read_text(encoding="utf-8"))
    assert "num_epochs: int = 20," in text
    assert "option(" not in text


def functions(thing: object, name: str) -> Iterator[tuple[str, object, str]]:
    """A public function or class, and a class's own public methods; with their docstrings, a method's with those of what it overrides."""
    if inspect.isfunction(thing) or inspect.isclass(thing):
        yield name, thing, inspect.getdoc(thing) or ""
    for key, value in vars(thing).items() if inspect.isclass(thing) else ():
        member = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not key.startswith("_") and inspect.isfunction(member):
            texts = [inspect.getdoc(vars(base)[key]) or "" for base in inspect.getmro(thing) if key in vars(base)]
            yield f"{name}.{key}", member, "\n".join(texts)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_explained(room: str) -> None:
    missing = []
    for name, thing, text in (found for top, value in public(room).items() for found in functions(value, top)):
        if not text or text.startswith(f"{name.rpartition('.')[2]}("):  # a dataclass without words of its own
            missing.append(f"{name} has no docstring")
        elif inspect.isfunction(thing):
            parameters = [key for key in inspect.signature(thing).parameters if key not in ("self", "cls")]
            if "Raises:" in text and parameters and "Args:" not in text:
                missing.append(f"{name} says what it raises, but nothing of {', '.join(parameters)}")
            if len(parameters) > 1 and "Args:" not in text:
                missing.append(f"{name} says nothing of {', '.join(parameters)}")
    assert missing == []
