"""What the measurements share: many training runs, two at a time, that can be stopped and go on."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def train(command, folder):
    """Run one training to its end, unless its folder has a summary."""
    if not (folder / "summary.json").exists():
        arguments = [*command.split(), "--out", str(folder)]
        if (folder / "checkpoint.npz").exists():
            arguments = [command.split()[0], "--resume", str(folder)]
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        print(f"{folder.name}: done", flush=True)


def train_all(commands, folder):
    """Run `commands`, a dict from name to command, into folder/name; returns {name: folder}."""
    folders = {name: folder.resolve() / name for name in commands}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, commands.values(), folders.values()))
    return folders


def facts(command, folder):
    """What a result has to say of its run: command, versions, data, summary."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    seconds = round(summary.pop("seconds"))
    known = {"command": f"python {command}", "versions": config["versions"],
             "data_verified": config["data_verified"]}  # fmt: skip
    return known | summary | {"seconds": seconds}


def write(name, content):
    """data/results/<name>.json"""
    path = ROOT / "data" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
