"""Long fuzzing of all parsers, each in processes of its own: ``make fuzz MINUTES=10``, or ``make fuzz PARSER=bag INPUTS=100000``.

What it finds lies in ``build/fuzz/<parser>``, one file per mechanism. It ends with status 1 where it has found anything.
"""

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

from fuzzing import Tally, fuzz_apart
from parsers import PARSERS

from benchmarks import harness

RESULT = "fuzz"


def row(tally: Tally) -> dict[str, Any]:
    """A parser's counts as they are kept."""
    ends = tally.ends
    counts = {"inputs": tally.inputs, "read": ends["value"], "refused": ends["refused"], "damage": ends["damage"], "broken": ends["broken"]}
    return {**counts, "slowest_s": round(tally.slowest_s, 3)}


def save(rows: dict[str, dict[str, Any]], seed: int) -> None:
    """Put the counts of these parsers beside those of the others."""
    before = harness.load(RESULT, harness.RESULTS) or {"rows": {}}
    merged = {name: rows.get(name) or before["rows"].get(name) for name in PARSERS}
    where = harness.circumstances() | {"command": f"make fuzz SEED={seed} SAVE=1"}
    found = {name: each for name, each in merged.items() if each is not None}
    harness.save(RESULT, {"setting": {"seed": seed}, "circumstances": where, "rows": found})


def main() -> int:
    """Fuzz what is asked for; the status of the process."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--minutes", type=float, default=10.0, help="for all parsers together")
    parse.add_argument("--parser", nargs="*", default=[], choices=[*PARSERS, []], help="these alone")
    parse.add_argument("--inputs", type=int, default=10**9, help="at most so many per parser")
    parse.add_argument("--seed", type=int, help="the same inputs for the same seed; by default other ones every time")
    parse.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where inputs are kept")
    parse.add_argument("--save", action="store_true", help="keep the counts in benchmarks/results")
    given = parse.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    chosen = given.parser or list(PARSERS)
    print(f"seed {seed}")
    end, rows, broken = time.monotonic() + 60 * given.minutes, {}, 0
    for number, name in enumerate(chosen):
        seconds = max(0.0, end - time.monotonic()) / (len(chosen) - number)
        tally = fuzz_apart(PARSERS[name], seed=seed, inputs=given.inputs, seconds=seconds, kept=given.out / name)
        rows[name] = row(tally)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.ends.items()))
        print(f"{name}: {tally.inputs:,} inputs ({counts}), slowest {tally.slowest_s:.2f} s", flush=True)
        for found in tally.findings.values():
            print(f"    {found['count']} x {found['how'][:400]}  {found['input']}", flush=True)
        broken += len(tally.findings)
        if given.save:
            save(rows, seed)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
