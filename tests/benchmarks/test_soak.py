"""The soak: a healthy run of three minutes passes, and each way of going wrong is found in what was seen of it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import soak
from benchmarks.soak import ROWS, Look, growth_faults, halves, log_faults, main

STEPS_PER_EPOCH = 52


def seen(minutes: int = 6, **growth: float) -> list[Look]:
    """A look per second of a run that takes ten seconds per epoch; ``growth`` per look, of any field."""
    healthy = [Look(time_s, 0.1 * time_s, 900.0, 30, 12, 0, STEPS_PER_EPOCH * (1 + time_s // 10)) for time_s in range(60 * minutes)]
    return [look._replace(**{name: getattr(look, name) + i * by for name, by in growth.items()}) for i, look in enumerate(healthy)]


def records(done_steps: int) -> list[tuple[str, int]]:
    """What a run of so many steps logs, but for the order."""
    train = [("train", step) for step in range(min(done_steps, 2000)) if step % STEPS_PER_EPOCH % 10 == 0]
    late = [("train", step) for step in range(2000, done_steps, 2000)]
    return [*train, *late, *(("val", step) for step in range(STEPS_PER_EPOCH, done_steps, STEPS_PER_EPOCH))]


def test_a_run_that_stays_as_it_is_has_no_fault() -> None:
    rows = halves(seen())
    assert not growth_faults(rows)
    assert rows[ROWS["steps_per_s"]]["first"] == pytest.approx(5.2)
    assert rows[ROWS["core_ms"]]["second"] == pytest.approx(1000 / 52)


@pytest.mark.parametrize(
    ("field", "by", "row"),
    [
        ("memory_mib", 1.0, "resident memory, MiB: from 1"),
        ("handles", 0.1, "open handles"),
        ("threads", 0.05, "threads"),
        ("children", 0.01, "processes started"),
    ],
)
def test_what_grows_is_named(field: str, by: float, row: str) -> None:
    (fault,) = growth_faults(halves(seen(**{field: by})))
    assert fault.startswith(row)
    assert "is allowed" in fault


def test_steps_that_slow_down_are_named() -> None:
    slowing = [look._replace(core_s=0.1 * i + 0.001 * i * i) for i, look in enumerate(seen())]
    (fault,) = growth_faults(halves(slowing))
    assert fault.startswith("ms of a core per step")


@pytest.mark.parametrize("done_steps", [400, 416, 5003])
def test_logs_that_hold_each_record_once_have_no_fault(done_steps: int) -> None:
    whole = records(done_steps)
    assert not log_faults(whole, whole, done_steps, STEPS_PER_EPOCH)
    # Stopped while the validation of its last whole epoch was logged, or before.
    last = ("val", done_steps)
    assert bool(log_faults([*whole, last], whole, done_steps, STEPS_PER_EPOCH)) == bool(done_steps % STEPS_PER_EPOCH)


def test_records_that_lack_or_come_twice_are_named() -> None:
    whole = records(400)
    assert log_faults(whole[:3] + whole[4:], whole, 400, STEPS_PER_EPOCH) == ["metrics.jsonl lack 1 records, such as train 30"]
    assert log_faults(whole, [*whole, whole[0]], 400, STEPS_PER_EPOCH) == ["TensorBoard's files hold twice 1 records, such as train 0"]
    assert log_faults([*whole, ("train", 33)], whole, 400, STEPS_PER_EPOCH) == [
        "metrics.jsonl hold, of no step that is logged, 1 records, such as train 33"
    ]


def test_a_run_that_ends_early_is_said_with_its_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "OPTIONS", "--dataset demo --height 33")
    monkeypatch.setattr(soak, "write_lists", lambda _: None)  # it would render the demo first
    result = CliRunner().invoke(main, ["--minutes", "1"])
    assert result.exit_code == 1
    assert "md-train ended with 2" in result.output
    assert "height_px=33 must be a multiple of 32" in " ".join(result.output.split())


@pytest.mark.slow
def test_three_minutes_of_training_are_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MD_RESULTS", str(tmp_path))
    result = CliRunner().invoke(main, ["--minutes", "3"])
    assert result.exit_code == 0, result.output
    assert "flat: memory, handles, threads and pace; every log record once" in result.output
