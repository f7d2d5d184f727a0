"""A compiled step in several processes."""

from pathlib import Path

import compiled_work
import pytest
from torchrun import torchrun


@pytest.mark.slow
def test_a_compiled_step_recomputes_activations_in_several_processes() -> None:
    program = Path(compiled_work.__file__)
    path = {"PYTHONPATH": ":".join(str(program.parents[level]) for level in (0, 2))}
    done = torchrun(2, program, env=path)
    assert done.returncode == 0, done.stdout
    assert "\ncompiled, activations recomputed 0." in f"\n{done.stdout}"
