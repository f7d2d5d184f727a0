"""The goals of a GPU: what results say about each, and the page that shows them."""

from gpu_results import WHERE

from benchmarks.gpu_targets import INFERENCE, STEP, TARGETS, TRAIN, compare, page


def results() -> dict[str, dict]:
    rows = {
        "plain fp32": {"ms": 30.0},
        "plain half precision, channels_last, compiled, bfloat16": {"ms": 12.0},
        "ours as md-train runs it, bfloat16": {"ms": 6.0, "times_plain": 5.0},
        "loss alone, plain": {"ms": 9.0},
        "loss alone, ours as md-train runs it": {"ms": 0.8},
    }
    train = {"from files": {"samples_per_s": 1.0, "wait_share": 0.9}, "frame store on disk": {"samples_per_s": 1700.0, "wait_share": 0.04}}
    one, many = "640x192, batch 1: ", "640x192, batch 16: "
    inference = {
        one + "a": {"ms": 0.3, "samples_per_s": 3333.0},
        one + "b": {"ms": 0.5, "samples_per_s": 2000.0},
        one + "absent": {},
        many + "a": {"ms": 3.0, "samples_per_s": 5333.0},
    }
    profiles = {
        STEP: {"loss alone, ours as md-train runs it": [["kernel_of_loss", 3.0, 0.5, 0.7]]},
        INFERENCE: {many + "a": [["conv", 1, 1, 1]]},
    }
    found = {STEP: rows, TRAIN: train, INFERENCE: inference}
    return {name: {"circumstances": WHERE, "rows": found[name], "profiles": profiles.get(name, {})} for name in found}


def test_goals_are_compared_on_the_gpu_they_are_for():
    rows = compare(results(), "NVIDIA H200")
    assert [row["met"] for row in rows.values()] == ["yes", "yes", "yes", "no", "yes", "no", "yes", "no"]
    assert rows["losses and their gradients"] == {"goal": "at most 0.60 ms", "measured": "0.80 ms", "met": "no"}
    assert rows["training step, times plain half precision, compiled"]["measured"] == "2.00"
    assert rows["prediction of one image of 640x192"]["measured"] == "0.30 ms"
    other = compare(results(), "NVIDIA A100")
    assert {row["met"] for row in other.values()} == {"–"}
    assert [row["measured"] for row in other.values()] == [row["measured"] for row in rows.values()]
    nothing = compare({}, "NVIDIA H200")
    assert {row["measured"] for row in nothing.values()} == {row["met"] for row in nothing.values()} == {"–"}
    assert len(TARGETS) == 8


def test_the_page_shows_where_the_time_of_a_missed_goal_goes():
    found = results()
    proof = {"circumstances": found[STEP]["circumstances"], "is_rehearsal": False, "parts": [], "rows": compare(found, "NVIDIA H200")}
    shown = page(proof, found)
    assert "| `kernel_of_loss` | 3.0 | 0.500 | 70% |" in shown
    assert "`conv`" in shown
    assert "NVIDIA H200, 16 cores; Python 3, torch 2, triton 1" in shown
    found[STEP]["rows"]["loss alone, ours as md-train runs it"]["ms"] = 0.5
    assert "kernel_of_loss" not in page(proof | {"rows": compare(found, "NVIDIA H200")}, found)
    assert "| measurement | goal on an H200 | measured | met |" in shown
    headings = [line for line in shown.splitlines() if line.startswith("## ")]
    assert "## Whole training on a GPU" in headings
    assert not any(line.startswith("## Md") for line in headings)
