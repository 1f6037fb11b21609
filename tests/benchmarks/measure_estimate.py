"""What `rayseg doctor --estimate` says of a run, and what the run then takes.

Run from the repository root, alone on the machine: ``python tests/benchmarks/measure_estimate.py
--preset demo --synthetic.count 200``; the flags are those of `rayseg run`. Both
are the commands that a user would give; the run gets a folder of its own and keeps nothing of what
was measured. Results stand in ``results/estimate.json``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAYSEG = [sys.executable, "-m", "rayseg.cli"]


def seconds(command):
    """Wall seconds of a command that must end well, and what it says."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
    return time.perf_counter() - start, done.stdout


def said_seconds(duration):
    """Seconds of a duration as doctor says it, such as ``90 s``, ``5 min``, ``2 h 10 min``."""
    units = {"s": 1, "min": 60, "h": 3600}
    words = duration.split()
    return sum(
        int(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        looked, told = seconds([*RAYSEG, "doctor", *flags, "--run", f"{scratch}/a", "--estimate"])
        taken, _ = seconds([*RAYSEG, "run", *flags, "--run", f"{scratch}/b"])
    table = told[told.index("stage ") :].splitlines()
    estimate = said_seconds(table[-1].partition(", ")[2].partition(" on this")[0])
    facts = {
        "flags": flags,
        "estimated_seconds": estimate,
        "taken_seconds": round(taken, 1),
        "ratio": round(estimate / taken, 3),
        "seconds_of_the_estimate": round(looked, 1),
        "said": table,
    }
    sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    (options.out / "estimate.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
