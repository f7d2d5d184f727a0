"""The goals of an H200, what the results of a run say about each, and the page that shows the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.step_rows import LOSS_ALONE, OURS, PLAIN_COMPILED
from benchmarks.table import CAPTIONS, NONE, table

STEP, LOADER, TRAIN, INFERENCE = "bench_step_gpu", "bench_loader_gpu", "bench_train_gpu", "bench_inference_gpu"
LOG = "gpu_proof.log"
# The GPU that the goals were computed for.
GOALS_GPU = "H200"
STORE_ROWS = ("frame store on the GPU", "frame store on disk")

# By the result's name, the result.
Results = Mapping[str, Mapping[str, Any]]


class Target(NamedTuple):
    """A goal.

    Attributes:
        at_most: whether less is better.
        form: of the value, with its unit.
        measure: its value in the results; None where they lack it.
        profile: the result that holds its kernels and how the profiled row's name begins; None where no kernels explain it.
    """

    name: str
    goal: float
    at_most: bool
    form: str
    measure: Callable[[Results], float | None]
    profile: tuple[str, str] | None

    def text(self) -> str:
        """The goal in words."""
        return f"at {'most' if self.at_most else 'least'} {self.form.format(self.goal)}"

    def is_met(self, value: float) -> bool:
        """Whether the value reaches the goal."""
        return value <= self.goal if self.at_most else value >= self.goal


def _figure(result: str, row: str, key: str) -> Callable[[Results], float | None]:
    """Reads a figure of the first row whose name begins so."""

    def read(results: Results) -> float | None:
        values = _rows(results, result, row)
        return next((float(figures[key]) for figures in values if key in figures), None)

    return read


def _rows(results: Results, result: str, prefix: str) -> list[Mapping[str, float]]:
    return [figures for name, figures in results.get(result, {}).get("rows", {}).items() if name.startswith(prefix)]


def _over_compiled(results: Results) -> float | None:
    plain, ours = _figure(STEP, PLAIN_COMPILED, "ms")(results), _figure(STEP, OURS, "ms")(results)
    return None if plain is None or ours is None else plain / ours


def _from_store(key: str) -> Callable[[Results], float | None]:
    """Reads a figure of the first store there is: ``--frame_store auto`` takes the GPU's where the frames fit."""

    def read(results: Results) -> float | None:
        found = (_figure(TRAIN, row, key)(results) for row in STORE_ROWS)
        return next((value for value in found if value is not None), None)

    return read


def _fastest(batch_size: int, key: str) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        rows = [figures for figures in _rows(results, INFERENCE, _prediction(batch_size)) if "ms" in figures]
        return min(rows, key=lambda figures: figures["ms"])[key] if rows else None

    return read


def _prediction(batch_size: int) -> str:
    return f"640x192, batch {batch_size}: "


OF_STEP, OF_LOSS = (STEP, OURS), (STEP, LOSS_ALONE)
TARGETS = (
    Target("training step, batch 12 of 640x192", 7.0, True, "{:.2f} ms", _figure(STEP, OURS, "ms"), OF_STEP),
    Target("training step, times plain fp32", 4.0, False, "{:.2f}", _figure(STEP, OURS, "times_plain"), OF_STEP),
    Target("training step, times plain half precision, compiled", 2.0, False, "{:.2f}", _over_compiled, OF_STEP),
    Target("losses and their gradients", 0.6, True, "{:.2f} ms", _figure(STEP, LOSS_ALONE + OURS, "ms"), OF_LOSS),
    Target("md-train from the frame store", 1500.0, False, "{:.0f} samples/s", _from_store("samples_per_s"), OF_STEP),
    Target("md-train from the frame store, waiting for data", 0.03, True, "{:.1%}", _from_store("wait_share"), None),
    Target("prediction of one image of 640x192", 0.4, True, "{:.2f} ms", _fastest(1, "ms"), (INFERENCE, _prediction(1))),
    Target(
        "prediction of 16 images of 640x192", 8000.0, False, "{:.0f} images/s", _fastest(16, "samples_per_s"), (INFERENCE, _prediction(16))
    ),
)


def compare(results: Results, gpu: str | None) -> dict[str, dict[str, str]]:
    """A row per goal: the goal, what was measured, and whether it is met, which only the GPU of the goals can tell."""
    rows = {}
    for target in TARGETS:
        value = target.measure(results)
        told = value is not None and GOALS_GPU in (gpu or "")
        met = NONE if value is None or not told else "yes" if target.is_met(value) else "no"
        rows[target.name] = {"goal": target.text(), "measured": NONE if value is None else target.form.format(value), "met": met}
    return rows


def page(proof: Mapping[str, Any], results: Results) -> str:
    """The run as Markdown: its goals, its parts, every table, and the kernels behind each goal that was missed.

    Args:
        proof: what ``gpu_proof.json`` holds.
    """
    title = "Rehearsal on a CPU: its figures mean nothing" if proof["is_rehearsal"] else "What this GPU does"
    where = proof["circumstances"]
    versions = ", ".join(f"{package} {version}" for package, version in where["versions"].items())
    machine = f"{where['gpu'] or where['cpu']}, {where['cores']} cores; Python {where['python']}, {versions}"
    head = [f"# {title}", "", machine, "", table("gpu_proof", proof)]
    end = [f"The whole output: `{LOG}`.", ""]
    return "\n".join([*head, *_parts(proof["parts"]), *_tables(results), *_profiles(proof, results), *end])


def _parts(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("## Parts", "", "| part | outcome | seconds | seconds planned |", "|---|---|---:|---:|")
    for part in parts:
        outcome = part["outcome"].replace("|", "\\|").replace("\n", "<br>")
        yield f"| {part['name']} | {outcome} | {part['seconds']:.0f} | {part['estimate_s']} |"
    yield ""
    left_out = [line for part in parts for line in part["left_out"]]
    if left_out:
        yield from ("Left out:", "", *(f"- {line}" for line in left_out), "")


def _tables(results: Results) -> Iterator[str]:
    for name, result in results.items():
        # The caption's heading, a level higher.
        yield from (CAPTIONS[name].partition("\n")[0].removeprefix("#"), "", table(name, result))


def _profiles(proof: Mapping[str, Any], results: Results) -> Iterator[str]:
    """The kernels of missed goals; of all in a rehearsal, which makes them for the sake of this code."""
    missed = [target for target in TARGETS if proof["is_rehearsal"] or proof["rows"][target.name]["met"] == "no"]
    for result, row in dict.fromkeys(target.profile for target in missed if target.profile):
        for name, kernels in results.get(result, {}).get("profiles", {}).items():
            if name.startswith(row):
                yield from (f"## Where the time goes: {name}", "", "| kernel | launches | ms | share |", "|---|---:|---:|---:|")
                yield from (f"| `{kernel}` | {launches:.1f} | {ms:.3f} | {share:.0%} |" for kernel, launches, ms, share in kernels)
                yield ""
