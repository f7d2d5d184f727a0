"""Writes the tables of README.md and docs/*.md from ``benchmarks/results/*.json``: ``python -m benchmarks.table``.

No measured figure in those pages comes from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import RESULTS
from benchmarks.tables import CAPTIONS, COMMANDS, EXCERPTS, NONE, SETTINGS, TABLES

PROJECT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str, result: Mapping[str, Any]) -> str:
    """One result as Markdown: its rows, and a line that says where and how they were measured; no column that no row has a value for."""
    first, columns = TABLES[name]
    columns = [column for column in columns if any(column.key in values for values in result["rows"].values())]
    lines = ["| " + " | ".join([first, *(c.heading for c in columns)]) + " |", "|---|" + "---:|" * len(columns)]
    for row, values in result["rows"].items():
        lines.append("| " + " | ".join([row, *(c.form.format(values[c.key]) if c.key in values else NONE for c in columns)]) + " |")
    return "\n".join([*lines, "", f"*{origin(result)}*", ""])


def origin(result: Mapping[str, Any]) -> str:
    """Setting, hardware, versions, commit and command of a result."""
    where = result["circumstances"]
    versions = ", ".join(
        f"{package} {version}" for package, version in where["versions"].items() if package in ("torch", "nvidia-dali-cuda130")
    )
    setting = ", ".join(f"{SETTINGS.get(key, key)} {_text(value)}" for key, value in result.get("setting", {}).items())
    hardware = f"{where['gpu'] or where['cpu']}, {where['cores']} cores"
    return f"{setting}; {hardware}; {versions}; commit {where['commit']}; `{where['command']}`"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def fill_tables(text: str) -> str:
    """Fill a page's text with every table made again; where a result is missing, nothing is shown and a comment names the command."""

    def fill(match: re.Match[str]) -> str:
        source, rows = EXCERPTS.get(match[2], (match[2], ".*"))
        path = RESULTS / f"{source}.json"
        if not path.is_file():
            return f"{match[1]}<!-- made by `{COMMANDS.get(match[2], 'make bench')}` -->\n{match[3]}"
        result = json.loads(path.read_text(encoding="utf-8"))
        result["rows"] = {row: values for row, values in result["rows"].items() if re.fullmatch(rows, row)}
        caption = f"{CAPTIONS[match[2]]}\n\n" if match[2] in CAPTIONS else ""
        return match[1] + caption + table(match[2], result) + match[3]

    return BLOCK.sub(fill, text)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


@click.command()
def main() -> None:
    """Write the tables of README.md and docs/*.md from the committed results."""
    fill_pages()


def fill_pages() -> None:
    """Write every page whose tables have changed, and name it."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        filled = fill_tables(text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
            click.echo(f"wrote the tables of {page.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
