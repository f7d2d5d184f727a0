"""The report: what the page says, that names stay text, that its pictures show something, and that a browser finds all of them."""

import base64
import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataload.frames.sparse_depth import SparseDepth
from engine.evaluation.metrics import METRICS
from engine.evaluation.report import RANKS, Candidate, Example, pick_images, write_report
from engine.evaluation.scores import BAND_EDGES_M, ERROR_EDGES, Scores
from splits.errors import InputError

NUM_IMAGES = 30
SETTINGS = {"split": "eigen, 30 images", "alignment": "median", "crop": "garg & 80 m"}
SIZE_PX = (94, 310)
FIGURES = {"error_histogram.png", "abs_rel_by_distance.png", "per_image.png"}


def made_scores(abs_rel: float = 0.11, num_images: int = NUM_IMAGES, *, empty_bands: int = 0, ratios: bool = True) -> Scores:
    """Scores of the size and the order of a published model's."""
    rng = np.random.default_rng(round(1e4 * abs_rel))
    typical = np.array([abs_rel, 8 * abs_rel, 42 * abs_rel, 1.7 * abs_rel, 1 - abs_rel, 1 - abs_rel / 3, 1 - abs_rel / 6])
    per_image = typical * np.exp(rng.normal(0, 0.2, (num_images, 7)) * [1, 1, 1, 1, 0.05, 0.02, 0.01])
    pixels = (4e5 * np.exp(-np.arange(len(BAND_EDGES_M) - 1) / 1.5)).round()
    terms = typical * np.array([1, 1, typical[2], typical[3], 1, 1, 1])
    bands = np.column_stack([pixels, pixels[:, None] * terms * np.linspace(0.8, 2, pixels.size)[:, None]])
    if empty_bands:
        bands[-empty_bands:] = 0
    centres = (np.array(ERROR_EDGES[:-1]) + 0.025) / abs_rel
    histogram = (1e5 * np.exp(-(centres**2) / 2)).astype(np.int64)
    return Scores(per_image, rng.normal(31, 3, num_images) if ratios else None, bands, histogram)


def made_shown(rank: str, name: str = "2011_09_26/drive 7 l", *, image: bool = True) -> Example:
    """A road that rises to the horizon, measured at one pixel in twelve, predicted up to a smooth error."""
    rng = np.random.default_rng(len(rank))
    row, column = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]].astype(np.float32)
    depth_m = 150 / np.maximum(row - 30, 2)
    measured = (rng.random(SIZE_PX) < 1 / 12) & (row > 40)
    truth = SparseDepth.of(np.where(measured, depth_m, 0).astype(np.float32))
    wrong = (depth_m * (1 + 0.3 * np.sin(column / 30))).astype(np.float32)
    picture = np.stack([row * 2, column / 2, 255 - row], -1).astype(np.uint8) if image else None
    predicted = wrong[truth.rows, truth.columns]
    return Example(rank, name, np.linspace(0.1, 0.7, 7), picture, (7 / wrong).astype(np.float32), truth, predicted, truth.values_m < 8)


class Page(HTMLParser):
    """The page's cells by table, its text, and the tags that were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.in_cell = self.in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.in_style = tag == "style"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True
        elif tag == "small" and self.in_cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.in_cell = False
        self.in_style = self.in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self.in_style:
            return
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def written(folder: Path, candidates: Sequence[Candidate], shown: Sequence[Example] = ()) -> Page:
    path = write_report(folder, candidates, shown, settings=SETTINGS, title="A report")
    assert path == folder / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def spread(path: Path | io.BytesIO) -> float:
    """How far a picture's grey levels lie apart; 0 if it is blank."""
    with Image.open(path) as image:
        return float(np.asarray(image.convert("L")).std())


def test_best_median_and_worst_images_are_distinct_and_in_order() -> None:
    abs_rel = np.random.default_rng(0).permutation(np.linspace(0.05, 0.5, 21))
    picked = pick_images(abs_rel)
    place = {int(index): rank for rank, index in enumerate(np.argsort(abs_rel))}
    assert [(rank, place[index]) for rank, index in picked] == [
        *(("best", n) for n in (0, 1, 2)), *(("median", n) for n in (9, 10, 11)), *(("worst", n) for n in (20, 19, 18)),
    ]  # fmt: skip


@pytest.mark.parametrize("count", range(12))
def test_few_images_are_shown_once_each(count: int) -> None:
    picked = pick_images(np.arange(count) / 10.0)
    indices = [index for _, index in picked]
    assert len(set(indices)) == len(indices) == min(count, 9)
    values = [index for rank in RANKS for index in sorted(index for found, index in picked if found == rank)]
    assert values == sorted(values)
    if count > 1:
        assert (picked[0], picked[-1][0]) == (("best", 0), "worst")


def test_images_without_a_number_are_not_picked_and_equal_ones_keep_their_order() -> None:
    assert pick_images(np.array([0.2, np.nan, 0.1])) == [("best", 2), ("worst", 0)]
    assert pick_images(np.full(3, 0.1), per_rank=1) == [("best", 0), ("median", 1), ("worst", 2)]


def test_the_summary_has_means_intervals_ratios_and_the_best(tmp_path: Path) -> None:
    scores = made_scores(0.11), made_scores(0.09, ratios=False)
    page = written(tmp_path / "new" / "report", [Candidate("mono", scores[0]), Candidate("stereo", scores[1])])
    head, *rows = page.tables[0]
    assert [cell.split()[0] for cell in head] == ["candidate", *METRICS, "median"]
    assert [cell.split()[-1] for cell in head[1:8]] == ["↓"] * 4 + ["↑"] * 3
    for row, one in zip(rows, scores, strict=True):
        low, high = one.interval()
        assert row[1:8] == [f"{m:.3f} {a:.3f}–{b:.3f}" for m, a, b in zip(one.means.values(), low, high, strict=True)]
    assert [row[0] for row in rows] == ["mono", "stereo"]
    assert rows[0][8].split() == [f"{scores[0].median_ratio:.3f}", "±", f"{scores[0].median_ratio_std:.1%}"]
    assert rows[1][8].split() == ["–"]
    means = np.array([list(one.means.values()) for one in scores])
    best = np.concatenate([means[:, :4].argmin(0), means[:, 4:].argmax(0)])
    marked = re.findall(r'<td( class="best")?>', (tmp_path / "new" / "report" / "index.html").read_text())[:16]
    assert [bool(marked[n]) for n in (*range(7), *range(8, 15))] == [*(best == 0), *(best == 1)]
    assert "garg & 80 m" in page.text
    assert {attributes["scope"] for attributes in page.of("th")} == {"col", "row"}
    assert page.of("html") == [{"lang": "en"}]


def test_one_candidate_is_not_best_of_one(tmp_path: Path) -> None:
    page = written(tmp_path, [Candidate("only", made_scores(ratios=False))])
    assert "median ratio" not in page.text
    assert not page.of("b")
    assert "The best" not in page.text


def test_bands_are_the_first_candidates_and_empty_ones_have_no_number(tmp_path: Path) -> None:
    scores = made_scores(empty_bands=2)
    page = written(tmp_path, [Candidate("a", scores), Candidate("b", made_scores(0.2))])
    rows = page.tables[1][1:]
    assert [row[0] for row in rows] == [f"{low}–{low + 10} m" for low in BAND_EDGES_M[:-1]]
    assert rows[0][1:] == ["400,000", f"{4e5 / scores.bands[:, 0].sum():.1%}", *(f"{v:.3f}" for v in scores.band_errors()[0])]
    assert all(row[1:] == ["0", "0.0%", *["–"] * 7] for row in rows[-2:])
    assert "nan" not in page.text


def test_figures_and_images_are_files_and_in_the_page_and_none_is_blank(tmp_path: Path) -> None:
    shown = [made_shown(rank) for rank in ("best", "best", "median", "worst")]
    page = written(tmp_path, [Candidate("a", made_scores()), Candidate("b", made_scores(0.2))], shown)
    rows = {"best_1.png", "best_2.png", "median_1.png", "worst_1.png"}
    assert file_names(tmp_path) == {"index.html"} | FIGURES | rows
    assert all(spread(tmp_path / name) > 5 for name in FIGURES | rows)
    sources = [image["src"] or "" for image in page.of("img")] + [source["srcset"] or "" for source in page.of("source")]
    assert len(sources) == 2 * len(FIGURES) + 4 * len(shown)
    embedded = [base64.b64decode(source.partition(",")[2]) for source in sources]
    assert all(spread(io.BytesIO(data)) > 5 for data in embedded)
    assert {(tmp_path / name).read_bytes() for name in FIGURES} <= set(embedded)
    assert all(image["alt"] for image in page.of("img"))
    with Image.open(tmp_path / "best_1.png") as image:
        assert image.width > 4 * SIZE_PX[1]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = written(tmp_path, [Candidate("a", made_scores())], [made_shown("best")])
    text = (tmp_path / "index.html").read_text()
    assert "://" not in text
    assert not page.of("script")
    assert all((link["href"] or "").startswith("data:") for link in page.of("link"))
    assert not re.search(r"url\(|@import", text)


def test_names_are_text(tmp_path: Path) -> None:
    name = """<script>alert("1")</script> & 'x' $\\frac{$"""
    shown = made_shown("worst", name)
    path = write_report(tmp_path, [Candidate(name, made_scores())], [shown], settings={name: name}, title=name)
    page = Page(path.read_text())
    assert not page.of("script")
    assert page.tables[0][1][0] == name
    assert page.text.count(name) >= 6
    assert page.of("img")[-1]["alt"] == f"relative error, 0 to 50% of {name}"


def test_epochs_become_a_curve_and_many_candidates_stay_readable(tmp_path: Path) -> None:
    epochs = [Candidate(f"run/weights_{n}", made_scores(0.3 / (n + 1)), n) for n in range(4)]
    page = written(tmp_path, [*epochs, Candidate("_published", made_scores())])
    assert "curve.png" in file_names(tmp_path)
    assert spread(tmp_path / "curve.png") > 5
    assert len(page.tables[0]) == 6
    assert len(page.of("source")) == 4
    many = [Candidate(f"run/weights_{n}", made_scores(0.3 / (n + 1)), n) for n in range(12)]
    assert len(written(tmp_path / "many", many).tables[0]) == 13


def test_last_epochs_of_different_runs_are_no_curve(tmp_path: Path) -> None:
    last = [Candidate("runs/a", made_scores(), 19), Candidate("runs/b", made_scores(0.2), 9), Candidate("c/weights_3", made_scores(0.3), 3)]
    written(tmp_path, last)
    assert "curve.png" not in file_names(tmp_path)


def test_a_later_report_replaces_an_earlier_one_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("{}")
    epochs = [Candidate(f"weights_{n}", made_scores(0.2 / (n + 1)), n) for n in range(2)]
    written(tmp_path, epochs, [made_shown("best"), made_shown("worst")])
    assert {"curve.png", "worst_1.png"} < file_names(tmp_path)
    page = written(tmp_path, [Candidate("other", made_scores(0.15))], [made_shown("best")])
    assert file_names(tmp_path) == {"index.html", "scores.json", "best_1.png"} | FIGURES
    assert page.tables[0][1][0] == "other"
    assert [path.name for path in tmp_path.parent.iterdir() if path.name.startswith(f".{tmp_path.name}")] == []


def test_the_folder_one_stands_in_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(Path("."), [Candidate("a", made_scores())], [], settings={}, title="Here")
    assert file_names(tmp_path) == {"index.html"} | FIGURES


def test_the_same_scores_give_the_same_page(tmp_path: Path) -> None:
    for name in "ab":
        written(tmp_path / name, [Candidate("a", made_scores())], [made_shown("best")])
    assert (tmp_path / "a" / "index.html").read_bytes() == (tmp_path / "b" / "index.html").read_bytes()


def test_one_image_only(tmp_path: Path) -> None:
    scores = made_scores(num_images=1)
    assert pick_images(scores.per_image[:, 0]) == [("best", 0)]
    page = written(tmp_path, [Candidate("a", scores)], [made_shown("best")])
    assert "1 image, 1 candidate" in page.text
    assert file_names(tmp_path) == {"index.html", "best_1.png"} | FIGURES


def test_a_missing_input_is_said_and_the_rest_shown(tmp_path: Path) -> None:
    page = written(tmp_path, [Candidate("a", made_scores())], [made_shown("median", image=False)])
    assert "input not on disk" in page.text
    assert [image["alt"].split(" of ")[0] for image in page.of("img")[-3:]] == [
        "predicted inverse depth", "true inverse depth", "relative error, 0 to 50%",
    ]  # fmt: skip
    assert spread(tmp_path / "median_1.png") > 5


def test_large_images_are_reduced(tmp_path: Path) -> None:
    shown = made_shown("best")._replace(image=np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8))
    page = written(tmp_path, [Candidate("a", made_scores())], [shown])
    with Image.open(io.BytesIO(base64.b64decode((page.of("img")[-1]["src"] or "").partition(",")[2]))) as panel:
        assert panel.width * panel.height <= 171_000
        assert abs(panel.width / panel.height - 4 / 3) < 0.01


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"^report: cannot write into .*file.*; choose another folder$"):
            written(folder, [Candidate("a", made_scores())])
    assert file_names(tmp_path) == {"file"}


CHECK = """
<script>
const wrong = [];
window.addEventListener("error", event => wrong.push(event.message || "not loaded: " + event.target.tagName), true);
window.addEventListener("load", () => {
  const images = [...document.images];
  const found = document.createElement("output");
  found.id = "found";
  found.textContent = [images.length, images.filter(image => image.complete && image.naturalWidth > 1).length,
    document.documentElement.scrollWidth <= window.innerWidth, ...wrong].join("|");
  document.body.append(found);
});
</script>
"""


def browser() -> str:
    """The browser of this machine; skips where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "google-chrome-stable"))), None)
    if found is None:
        pytest.skip("no chromium or google-chrome on PATH to open the report in")
    return found


def opened(page: Path, profile: Path, *options: str) -> list[str]:
    """What a browser without network finds in the page: images, images loaded, whether its width fits, errors."""
    program = browser()
    text = page.read_text(encoding="utf-8")
    copy = profile.with_suffix(".html")
    copy.write_text(text.replace("</title>", f"</title>{CHECK}", 1), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --no-first-run "
        "--virtual-time-budget=5000 --dump-dom"
    )
    command = [program, *flags.split(), "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", *options, copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<output id="found">(.*?)</output>', done.stdout)
    assert found, done.stderr[-2000:]
    return found[1].split("|")


@pytest.mark.parametrize(("scheme", "width_px"), [("light", 1280), ("dark", 500)])
def test_a_browser_loads_every_image_without_an_error(tmp_path: Path, scheme: str, width_px: int) -> None:
    candidates = [Candidate("<run>/weights_0", made_scores(0.2), 0), Candidate("<run>/weights_1", made_scores(), 1)]
    shown = [made_shown(rank, image=rank != "worst") for rank in RANKS]
    folder = tmp_path / "report"
    written(folder, candidates, shown)
    setting = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    # 4 figures, 4 + 4 + 3 panels.
    assert opened(folder / "index.html", tmp_path / "profile", setting, f"--window-size={width_px},900") == ["15", "15", "true"]


def test_the_browsers_check_sees_a_broken_image(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text('<title>x</title><body style="min-width:3000px"><img src="data:image/png;base64,AAAA"></body>')
    assert opened(page, tmp_path / "profile") == ["1", "0", "false", "not loaded: IMG"]
