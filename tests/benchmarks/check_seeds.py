"""False alarms of check.py: right estimators with hundreds of seeds. None is expected.

    python tests/benchmarks/check_seeds.py --seeds 30 --estimates 16000

The estimators are those of tests/test_check.py and of the collection; each seed is a whole check of
21 gradients. Prints how many there were, and the largest deviation in units of what is allowed.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "methods"), str(ROOT / "tests")]

import check  # noqa: E402
import numpy as np  # noqa: E402
import test_check as t  # noqa: E402

RIGHT = {
    "REINFORCE": (t.reinforce, {}),
    "REINFORCE, own noise": (t.reinforce_with_own_noise, {}),
    "RLOO, K = 3": (t.rloo, {"samples": 3}),
    "VIMCO, K = 3": (t.vimco, {"samples": 3, "target": "bound", "bits": 3}),
    "DisARM": (t.disarm, {}),
    "MuProp": (t.muprop, {}),
    "REBAR": (t.rebar, {}),
    "REBAR, T = .1": (partial(t.rebar, T=0.1), {}),
    "REBAR, T = .1, one bit": (partial(t.rebar, T=0.1), {"bits": 1}),
    "REBAR, 12 bits": (t.rebar, {"bits": 12}),
    "REINFORCE, batch": (
        partial(t.M.reinforce.gradient_samples, baseline="batch"), {},
    ),
    "REINFORCE, classes": (
        partial(t.M.gumbel_softmax.gradient_samples, estimator="reinforce"), t.CATEGORICAL,
    ),
    "REBAR, classes": (
        partial(t.M.gumbel_softmax.gradient_samples, estimator="rebar"), t.CATEGORICAL,
    ),
}  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seeds", type=int, default=30)
    p.add_argument("--estimates", type=int, default=16_000)
    args = p.parse_args()
    start, checks, alarms = time.process_time(), 0, 0
    for name, (function, how) in RIGHT.items():
        excess = []
        for seed in range(100, 100 + args.seeds):
            report = check.check(function, seed=seed, estimates=args.estimates, **how)
            excess.append(max(row.excess for row in report.rows))
            alarms += not report.unbiased
            checks += 1
        print(f"{name:32} largest |deviation| / allowed: {np.max(excess):.2f}", flush=True)
    print(f"{checks} checks, {alarms} false alarms, {time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()
