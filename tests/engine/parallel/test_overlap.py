"""Gradients are exchanged while others are still being computed."""

from pathlib import Path

import overlap_work
import pytest
from torchrun import torchrun


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_gradients_set_out_before_the_backward_pass_is_over(tmp_path, amp) -> None:
    program, out = Path(overlap_work.__file__), tmp_path / "events"
    path = {"PYTHONPATH": ":".join(str(program.parents[level]) for level in (0, 2))}
    done = torchrun(2, program, str(out), amp, env=path)
    assert done.returncode == 0, done.stdout
    events = out.read_text().split()
    before, after = events[: events.index("early")], events[events.index("early") :]
    assert before.count("exchange") >= 1, events
    assert after.count("exchange") >= 1, events
