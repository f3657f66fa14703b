"""Hours of every full configuration on one core, eager and compiled: data/results/hours.json.

    python tests/benchmarks/hours.py             # 10 minutes; needs MNIST, Omniglot and jax

The steps 100 to 400 of each run are timed by the seconds of its log, so neither the start nor the
compilation counts. Eager and compiled follow each other for every configuration. What is printed
is for all 2,000,000 steps, without evaluations.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from runs import ROOT, log_rows, write

CONFIGURATIONS = [
    "mnist", "mnist --layers 2", "mnist --nonlinear", "mnist --task predict",
    "mnist --task predict --layers 2", "omniglot", "omniglot --layers 2", "omniglot --nonlinear",
]  # fmt: skip
FIRST, LAST, ALL = 100, 400, 2_000_000


def hours(program, flags):
    """Hours of ALL steps of a program."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        words = f"--dataset {flags} --steps {LAST} --log-every {FIRST} --eval-every {LAST}".split()
        command = [sys.executable, str(ROOT / "methods" / f"{program}.py"), *words,
                   "--eval-samples", "1", "--no-plots", "--out", str(out)]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        rows = {row["step"]: row["seconds"] for row in log_rows(out)}
    return (rows[LAST] - rows[FIRST]) / (LAST - FIRST) * ALL / 3600


def main():
    table = []
    for flags in CONFIGURATIONS:
        row = {"flags": flags}
        for program in ("reinforce", "rebar"):
            for mode in ("", " --compile"):
                row[program + mode] = round(hours(program, flags + mode), 2)
        table.append(row)
        print(row, flush=True)
    write(
        "hours",
        {
            "command": "python tests/benchmarks/hours.py",
            "timed_steps": [FIRST, LAST],
            "hours": table,
        },
    )


if __name__ == "__main__":
    main()
