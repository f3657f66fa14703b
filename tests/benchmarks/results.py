"""The long measurements of data/results/README.md, each from many runs, into <name>.json there.

    .venv/bin/python data/download.py all
    .venv/bin/python tests/benchmarks/results.py dreg             # IWAE and DReG, MNIST
    .venv/bin/python tests/benchmarks/results.py semi_supervised_digits
    .venv/bin/python tests/benchmarks/results.py semi_supervised_mnist        # all at α = 1
    .venv/bin/python tests/benchmarks/results.py semi_supervised_mnist_at_default
    .venv/bin/python tests/benchmarks/results.py semi_supervised_alpha_digits   # and …_mnist
    .venv/bin/python tests/benchmarks/results.py semi_supervised_deeper         # …_alpha_deeper
    .venv/bin/python tests/benchmarks/results.py categorical_lr   # 20 variables, 10 classes, MNIST
    .venv/bin/python tests/benchmarks/results.py categorical
    .venv/bin/python tests/benchmarks/results.py structured       # the lower half; …_lr before
    .venv/bin/python tests/benchmarks/results.py dvae_sharp       # eight variants, binarized MNIST
    .venv/bin/python tests/benchmarks/results.py dvae_sharp_samplers

Two runs at a time, or --at-once N. Runs that are in the folder --runs already are not repeated, and
those that were stopped go on.
"""

import argparse
import itertools
from pathlib import Path

from runs import ROOT, facts, train_all, write

M2 = "methods/semi_supervised.py --no-plots"
DEEPER = f"{M2} --compile --dataset mnist --unlabelled marginal --depth 2 --eval-every 4000"
OBJECTIVES = {"marginal": "marginal", "gumbel": "gumbel", "straight-through": "straight-through",
              "reinforce": "reinforce --samples 2"}  # fmt: skip
LATER = {"reinmax": "reinmax", "unordered": "unordered --samples 2"}
ALPHAS = {"unlabelled": (*OBJECTIVES, "reinmax"), "alpha": (1, 10, 30, 100), "seed": (0, 1)}
DVAE = ("methods/dvae_sharp.py --no-plots --dataset mnist --steps 3000 --chains 500 --sweeps 10"
        " --log-every 500 --eval-every 1500 --eval-samples 10 --test-samples 100")  # fmt: skip
DVAE_VARIANTS = ("dvae_spike_exp", "dvaepp_exp", "dvaepp_power", "dvaes_gi", "dvaes_gauss",
                 "dvaes_exp", "dvaes_unexp", "dvaes_power")  # fmt: skip
VAE = ("methods/gumbel_softmax.py --no-plots --compile --dataset mnist --variables 20 --hidden"
       " --prior learned --decay 1 --eval-every 1000000000 --eval-samples 100")  # fmt: skip
CATEGORICAL = {  # by what is learned, and the lr of the best validation bound after 3,000 steps
    "gumbel-softmax": ("gumbel-softmax --anneal-rate 3e-5", "3e-3"),
    "straight-through": ("gumbel-softmax --straight-through --anneal-rate 3e-5", "1e-2"),
    "reinmax": ("reinmax", "3e-3"),
    "reinforce": ("reinforce", "3e-3"),
    "vimco": ("reinforce --samples 5", "3e-3"),
    "rebar": ("rebar", "3e-3"),
}
HALVES = ("methods/{method} --task predict --dataset mnist --layers 2 --hidden 240 --compile"
          " --no-plots --eval-every 1000000000")  # fmt: skip
STRUCTURED = {"concrete": "concrete.py --temperature 0.6667", "vimco": "vimco.py"}
EXPERIMENTS = {
    "dreg": (
        "methods/dreg.py --dataset mnist --batch-size 20 --lr 1e-3 --steps 100000"
        " --samples {K} --estimator {estimator}",
        {"K": (1, 5, 50), "estimator": ("dreg", "iwae")},
        "test_log_likelihood",
    ),
    "semi_supervised_digits": (
        f"{M2} --alpha 1 --labels {{labels}} --unlabelled {{unlabelled}} --seed {{seed}}",
        {"labels": (2, 10), "unlabelled": (*OBJECTIVES, *LATER), "seed": (0, 1, 2)},
        "test_accuracy",
    ),
    "semi_supervised_mnist": (
        f"{M2} --alpha 1 --dataset mnist --eval-every 2000 --unlabelled {{unlabelled}}"
        " --seed {seed}",
        {"unlabelled": tuple(OBJECTIVES), "seed": (0, 1, 2)},
        "test_accuracy",
    ),
    "semi_supervised_mnist_at_default": (
        f"{M2} --compile --dataset mnist --eval-every 2000 --unlabelled {{unlabelled}}"
        " --seed {seed}",
        {"unlabelled": (*OBJECTIVES, "reinmax"), "seed": (0, 1, 2)},
        "test_accuracy",
    ),
    "semi_supervised_alpha_digits": (
        f"{M2} --unlabelled {{unlabelled}} --alpha {{alpha}} --seed {{seed}}",
        ALPHAS,
        "valid_accuracy",
    ),
    "semi_supervised_alpha_mnist": (
        f"{M2} --dataset mnist --steps 2000 --eval-every 2000 --unlabelled {{unlabelled}}"
        " --alpha {alpha} --seed {seed}",
        ALPHAS,
        "valid_accuracy",
    ),
    "semi_supervised_alpha_deeper": (
        f"{DEEPER} --steps 4000 --alpha {{alpha}} --seed {{seed}}",
        {"alpha": (1, 30, 100, 300), "seed": (0, 2)},
        "valid_accuracy",
    ),
    "semi_supervised_deeper": (
        f"{DEEPER} --alpha 30 --decay .9 --decay-every 1000 --seed {{seed}}",
        {"seed": (0, 1, 2)},
        "test_accuracy",
    ),
    "categorical_lr": (
        f"{VAE} --steps 3000 --estimator {{estimator}} --lr {{lr}}",
        {"estimator": tuple(CATEGORICAL), "lr": ("3e-4", "1e-3", "3e-3", "1e-2")},
        "valid_bound",
    ),
    "categorical": (
        f"{VAE} --steps 50000 --estimator {{estimator}} --lr {{lr}} --seed {{seed}}",
        {"estimator": tuple(CATEGORICAL), "seed": (0, 1, 2)},
        "test_bound",
    ),
    "structured_lr": (
        f"{HALVES} --steps 3000 --samples {{m}} --lr {{lr}}",
        {"method": tuple(STRUCTURED), "m": (5,), "lr": ("3e-4", "1e-3", "3e-3")},
        "valid_bound",
    ),
    "structured": (
        f"{HALVES} --steps 10000 --samples {{m}} --lr 3e-3 --seed {{seed}}",
        {"method": tuple(STRUCTURED), "m": (1, 5, 50), "seed": (0, 1, 2)},
        "test_bound",
    ),
    "dvae_sharp": (
        f"{DVAE} --samples {{k}} --variant {{variant}}",
        {"k": (1, 5), "variant": DVAE_VARIANTS},
        "test_log_likelihood",
    ),
    "dvae_sharp_samplers": (
        f"{DVAE} --samples 1 --variant dvaes_power --sampler {{sampler}}",
        {"sampler": ("pa", "pcd")},
        "test_log_likelihood",
    ),
}


def words(setting):
    """What the template of an experiment is filled with: names become programs and flags."""
    found = dict(setting)
    if "unlabelled" in found:
        found["unlabelled"] = (OBJECTIVES | LATER)[found["unlabelled"]]
    if found.get("estimator") in CATEGORICAL:
        found["estimator"], lr = CATEGORICAL[found["estimator"]]
        found = {"lr": lr} | found
    if found.get("method") in STRUCTURED:  # the bound of one sample is that of nvil.py
        alone = found["method"] == "vimco" and found["m"] == 1
        found["method"] = "nvil.py" if alone else STRUCTURED[found["method"]]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--at-once", type=int, default=2, metavar="N")
    args = parser.parse_args()
    template, axes, measure = EXPERIMENTS[args.experiment]
    settings = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    named = {"-".join([args.experiment, *map(str, s.values())]): s for s in settings}
    commands = {name: template.format(**words(s)) for name, s in named.items()}
    folders = train_all(commands, args.runs, args.at_once)
    results = [named[name] | facts(commands[name], folders[name]) for name in named]
    write(args.experiment, {"runs": results})
    for result in results:
        print(*(f"{key} {result[key]}" for key in axes), f"{measure} {result[measure]:.4f}")


if __name__ == "__main__":
    main()
