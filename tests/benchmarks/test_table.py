"""The figures in README and docs are those that the committed benchmark results hold."""

import json
import re

import pytest
from click.testing import CliRunner

from benchmarks import table as module
from benchmarks.harness import RESULTS
from benchmarks.table import BLOCK, CAPTIONS, COMMANDS, EXCERPTS, TABLES, fill_tables, main, pages, table

WHERE = {"cpu": "c", "gpu": None, "cores": 2, "versions": {"torch": "2"}, "commit": "abc", "command": "python -m x"}


def result(rows: dict[str, dict[str, float]]) -> dict[str, object]:
    return {"circumstances": WHERE, "setting": {"size_px": [1, 2]}, "rows": rows}


def test_the_pages_show_the_committed_results():
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    shown = {page: [match[1] for match in BLOCK.findall(text)] for page, text in texts.items()}
    placed = {name for names in shown.values() for name in names}
    assert placed <= set(TABLES)
    assert {path.stem for path in RESULTS.glob("*.json")} <= placed, "a result without a table"
    in_docs = [name for page, names in shown.items() if page.parent.name == "docs" for name in names]
    assert len(in_docs) == len(set(in_docs)), "a table that stands in two places of docs"
    stale = [page.name for page, text in texts.items() if fill_tables(text) != text]
    assert not stale, "run: python -m benchmarks.table"


def test_readme_and_every_page_of_docs_are_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "bench_loader.json").write_text(json.dumps(result({"plain": {"samples_per_s": 7.0}})))
    block = "<!-- table: bench_loader -->\n<!-- end -->\n"
    files = [tmp_path / "README.md", tmp_path / "docs" / "speed.md", tmp_path / "docs" / "none.md"]
    for path, text in zip(files, (block, block, "no table\n"), strict=True):
        path.write_text(text)
    done = CliRunner().invoke(main, catch_exceptions=False)
    assert done.output.split("\n")[:2] == ["wrote the tables of README.md", "wrote the tables of docs/speed.md"]
    assert ["| plain | 7.0 |" in path.read_text() for path in files] == [True, True, False]


@pytest.mark.parametrize("name", TABLES)
def test_a_changed_figure_changes_the_table(name):
    _, columns = TABLES[name]
    figures = {column.key: 3.0 + number for number, column in enumerate(columns)}
    shown = table(name, result({"row": figures}))
    assert "| row | " + " | ".join(column.form.format(figures[column.key]) for column in columns) + " |" in shown
    assert "c, 2 cores; torch 2; commit abc" in shown


def test_what_a_row_lacks_is_a_dash_and_what_all_lack_has_no_column():
    shown = table("bench_loader", result({"plain": {"samples_per_s": 2.0, "frames_per_s": 6.0}, "building": {"frames_per_s": 9.0}}))
    assert "| loader | samples/s | frames/s |\n" in shown
    assert "| plain | 2.0 | 6 |\n| building | – | 9 |\n" in shown


def test_without_a_result_a_reader_sees_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    text = "before\n<!-- table: bench_loader_gpu -->\nold\n<!-- end -->\nafter\n"
    empty = fill_tables(text)
    assert re.sub("<!--.*?-->\n", "", empty) == "before\nafter\n"
    assert "`make gpu-proof`" in empty
    (tmp_path / "bench_loader_gpu.json").write_text(json.dumps(result({"plain": {"samples_per_s": 7.0}})))
    filled = fill_tables(empty)
    assert "| plain | 7.0 |" in filled
    assert filled.index("### Loading for a GPU") < filled.index("| plain |")


def test_an_excerpt_shows_a_few_rows_of_another_result(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    rows = {name: {"input": "640x192", "gflops": 16.0} for name in ("mono_640x192", "mono+stereo_1024x320", "mono_no_pt_640x192")}
    (tmp_path / "bench_models.json").write_text(json.dumps(result(rows)))
    filled = fill_tables("<!-- table: main_models -->\n<!-- end -->\n")
    assert re.findall(r"^\| (m\S*_\S*) \|", filled, re.MULTILINE) == ["mono_640x192", "mono+stereo_1024x320"]
    assert "c, 2 cores; torch 2; commit abc" in filled


def test_only_tables_have_commands_captions_and_excerpts():
    assert set(COMMANDS) <= set(TABLES)
    assert set(CAPTIONS) <= set(TABLES)
    assert set(EXCERPTS) <= set(TABLES)
    assert {source for source, _ in EXCERPTS.values()} <= set(TABLES)
