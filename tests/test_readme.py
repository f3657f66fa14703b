"""The READMEs: links and anchors, Python blocks, quoted commands; no method is left out."""

import argparse
import importlib.util
import json
import re
import runpy
import shlex
import subprocess
import sys

import numpy as np
import proofs
import pytest

ROOT = proofs.METHODS.parent
FOLDERS = ("data", "methods", "notebooks", "tests")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\b[A-Z]{1,4}\b|<\w+>|…")  # DIR, N, <method>: not to be typed as it is


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def pages():
    """Every Markdown page of the project, by its path from the root."""
    found = [*ROOT.glob("*.md"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.md"))]
    paths = [path.relative_to(ROOT) for path in found]
    return sorted(p.as_posix() for p in paths if not any(part[0] == "." for part in p.parts))


PAGES = pages()


def blocks(language):
    """(page, text) of every fenced block in this language ("" if none is given)."""
    return [(p, text) for p in PAGES for name, text in FENCE.findall(read(p)) if name == language]


def prose(page):
    """A page without its fenced blocks and without what is in backticks."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", read(page)))


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    seen, names = {}, set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", FENCE.sub("", read(page)), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def links(page):
    """The targets of all links and pictures, and the faults of references like [text][name]."""
    text = prose(page)
    defined = dict(re.findall(r"^\[([^\]]+)\]: +(\S+)$", text, re.MULTILINE))
    used = set(re.findall(r"\]\[([^\]]+)\]", text))
    inline = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", text)
    wrong = [f"[{name}] is not defined" for name in used - defined.keys()]
    wrong += [f"[{name}] is not used" for name in defined.keys() - used]
    return [*inline, *defined.values()], wrong


def broken_links(page):
    targets, wrong = links(page)
    for target in targets:
        if re.match(r"[a-z]+:", target):  # another site
            continue
        path, _, anchor = target.partition("#")
        goal = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not goal.exists() or not goal.is_relative_to(ROOT):
            wrong.append(f"{target}: there is no such file")
        elif anchor and anchor not in anchors(goal.relative_to(ROOT)):
            wrong.append(f"{target}: there is no such heading")
    return wrong


# ------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_work(page):
    assert broken_links(page) == []


def test_pages_are_found_and_the_first_is_short():
    folders = ("methods", "notebooks", "data", "data/results", "tests", "tests/benchmarks")
    expected = {"README.md", *(f"{folder}/README.md" for folder in folders)}
    assert expected <= {*PAGES}
    assert len(read("README.md").splitlines()) <= 160
    targets, _ = links("README.md")
    assert expected - {"README.md"} <= {*targets}, "README.md does not lead to every page"


def test_the_two_commands_are_where_ci_looks_for_them():
    either = r"^(?:python3 -m venv.*|\.venv/bin/python -m pytest)$"  # what .ci/run greps
    found = re.findall(either, read("README.md"), re.MULTILINE)
    assert found == [
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt "
        "&& .venv/bin/python methods/rebar.py",
        ".venv/bin/python -m pytest",
    ]


def test_no_method_is_left_out_and_every_named_one_exists():
    """README's table names real files only; methods/README.md names every file with an entry."""
    named = set(re.findall(r"\(methods/(\w+\.py)\)", read("README.md")))
    there = {path.name: path.read_text(encoding="utf-8") for path in proofs.METHODS.glob("*.py")}
    assert named <= there.keys()
    entries = {n for n, code in there.items()
               if re.search(r"^def (?:gradient_samples|main)\(", code, re.MULTILINE)}  # fmt: skip
    linked = set(re.findall(r"\]\((\w+\.py)\)", read("methods/README.md")))
    assert entries - linked == set(), "methods/README.md does not name them"
    tools = {"compare.py", "check.py", "sweep.py"}
    assert entries - named - tools == set(), "they are not in README's table"


def test_every_result_is_on_the_page_of_results():
    """Each file of data/results/ is linked or shown there, but for the figure of README."""
    targets, _ = links("data/results/README.md")
    files = {path.name for path in (ROOT / "data" / "results").iterdir()} - {"README.md", "toy.png"}
    shown_elsewhere = {"speed.json", "hours.json"}
    assert files - shown_elsewhere <= {*targets}
    for name in shown_elsewhere:
        assert f"../../data/results/{name}" in links("tests/benchmarks/README.md")[0]


def test_tables_of_long_runs_are_those_of_their_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    import dreg_figure
    import linear_table

    page = read("data/results/README.md")
    rows = linear_table.table(result("linear_table")["runs"])[2:]
    rows += dreg_figure.table(result("dreg_figure")["runs"])[2:]
    shown = [line for line in rows if line in page]
    assert shown == rows
    training = {}
    for row in result("semi_supervised_gradients")["training"]:
        training.setdefault((row["unlabelled"], row["alpha"]), {})[row["step"]] = row
    for (name, alpha), rows in training.items():
        cells = [f"{rows[k][key]:.2f}" for key in ("cosine", "bias") for k in (100, 1000, 8000)]
        cells += [f"{rows[8000]['noise']:.1f}"]
        cells += [f"{100 * rows[k]['valid_accuracy']:.1f}" for k in (100, 8000)]
        cells = [cell.replace("-", "−") for cell in cells]
        assert " | ".join([f"| `{name}`", f"{alpha:g}", *cells]) + " |\n" in page
    runs = result("variance_figure")["runs"]
    for name in runs[0]["log_variance"]:
        cells = [f"{run['log_variance'][name][-1]:.2f}".replace("-", "−") for run in runs]
        assert re.search(rf"^\| {name}(?: \(biased\))? \| {' [|] '.join(cells)} \|$", page, re.M)


# -------------------------------------------------------------- the choice table, and the citations


def result(name):
    return json.loads(read(f"data/results/{name}.json"))


def on_the_map(kind):
    """V of every estimator on the map, and the bias of ReinMax at T = 1."""
    rows = [r for r in result("map")[kind] if r.get("T", 1.0) == 1.0]
    values = {row["estimator"]: row["variance"] for row in rows}
    return values, {row["estimator"]: row["bias"] for row in rows}["ReinMax"]


def measured():
    """(words of README's table, the number there, its value in data/results/)."""
    bits, bias = on_the_map("bits")
    classes, _ = on_the_map("classes")
    rows, vae = result("compare_samples")["rows"], result("reinmax_runs")["runs"]
    compare = proofs.load().compare
    K = lambda name: rows[name]["variance"] * compare.evaluations(name, 2, 2)
    loss = {r["estimator"]: r["test_ours"] for r in vae if r["configuration"] == "30 × 10"}
    runs = result("semi_supervised_mnist")["runs"]
    labels = lambda way: 100 * np.mean([r["test_accuracy"] for r in runs if r["unlabelled"] == way])
    dreg = {
        r["estimator"]: r["test_log_likelihood"] for r in result("dreg")["runs"] if r["K"] == 50
    }
    others = {
        r["estimator"]: r["ln_variance_ours"]
        for r in result("rodeo_runs")["table"]
        if (r["encoder"], r["step"]) == ("nonlinear", 3000)
    }
    return [
        ("NVIL V 38;", bits["NVIL"]), ("REINFORCE 160", bits["REINFORCE"]),
        ("DisARM V 22;", bits["DisARM"]), ("RLOO 33", bits["RLOO"]),
        ("MNIST: DisARM .046", K("DisARM")), ("RLOO .115", K("RLOO")),
        ("RELAX −5.6", others["RELAX-1"]), ("; DisARM −4.5", others["DisARM-2"]),
        ("RODEO −4.7", others["RODEO-2"]), ("REBAR V .020", K("DynamicREBAR")),
        ("; DisARM .046", K("DisARM")), ("bias .07 of", bias), ("V 20; REBAR", bits["ReinMax"]),
        ("REBAR 42", bits["DynamicREBAR"]), ("DisARM V .063", K("LocalDisARM")),
        ("VIMCO .177", K("VIMCO")), ("unordered V .94", classes["unordered, k = 4"]),
        ("REINFORCE 28", classes["REINFORCE"]), ("REBAR V 7.0;", classes["REBAR"]),
        ("ReinMax 139.5", loss["reinmax"]), ("ST-Gumbel 146.7", loss["st-gumbel"]),
        ("89.3 %", labels("marginal")), ("86.5 %", labels("gumbel")),
        ("DReG −90.97", dreg["dreg"]), ("IWAE −92.11", dreg["iwae"]),
    ]  # fmt: skip


@pytest.mark.parametrize(("words", "value"), measured())
def test_the_choice_table_is_measured(words, value):
    """Every number stands in data/results/, rounded as it is printed."""
    table = read("README.md").partition("## Which one for my problem?")[2].partition("##")[0]
    assert words in table
    number = re.search(r"−?(?:\d+\.\d+|\.\d+|\d+)", words)[0]
    half = 5 if number == "160" else 0.5 * 10.0 ** -len(number.partition(".")[2])
    assert abs(float(number.replace("−", "-")) - value) <= half


def test_the_choice_table_is_short_and_all_its_numbers_are_tested():
    table = read("README.md").partition("## Which one for my problem?")[2].partition("##")[0]
    rows = [line.split("|")[6] for line in table.splitlines() if line.startswith("| ")][1:]
    assert 8 <= len(rows) <= 12
    numbers = [n for row in rows for n in re.findall(r"(?<![\w.=] )\d*\.\d+|\d{2,}", row)]
    known = " ".join(words for words, _ in measured())
    assert [n for n in numbers if n not in known and n not in ("100", "50")] == []


def test_every_paper_can_be_cited():
    """Every method's file and every arXiv id in the pages and the files stand in references.bib."""
    bib = read("methods/references.bib")
    for name in re.findall(r"^\| \[(\w+\.py)\]", read("README.md"), re.MULTILINE):
        assert re.search(rf"^% .*\b{re.escape(name)}", bib, re.MULTILINE), name
    for text in (read("README.md"), read("methods/README.md").partition("## File by file")[2]):
        for number in re.findall(r"arxiv\.org/abs/(\d+\.\d+)", text):
            assert number in bib, number
    for path in (ROOT / "methods").rglob("*.py"):
        for number in re.findall(r"\b\d{4}\.\d{4,5}v?\d*\b", path.read_text(encoding="utf-8")):
            assert re.sub(r"v\d$", "", number) in bib, (path.name, number)
    keys = re.findall(r"^@\w+\{(\w+),$", bib, re.MULTILINE)
    assert len(keys) == len(set(keys)) == bib.count("  title ") == bib.count("  author ")
    assert bib.count("{") == bib.count("}")
    for entry in re.findall(r"^@.*?^\}", bib, re.MULTILINE | re.DOTALL):
        assert re.search(r"^  year += \{(19|20)\d\d\}", entry, re.MULTILINE), entry


# ----------------------------------------------------------------------------- blocks and commands


@pytest.mark.parametrize("block", range(len(blocks("python"))))
def test_python_block_runs(block):
    """In a fresh process, from the root, without a word on stderr."""
    page, code = blocks("python")[block]
    command, before = [sys.executable, "-c", code], {*(ROOT / "data").iterdir()}
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for made in {*(ROOT / "data").iterdir()} - before:
        made.unlink()
    assert (out.returncode, out.stderr) == (0, ""), page


def output(page):
    """What the first Python block of a page prints."""
    code = next(code for name, code in blocks("python") if name == page)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_example_of_readme_is_right():
    """Its mean is within 5 standard errors of the exact gradient, which it prints too.

    A bias of a fifth of the gradient fails.
    """
    printed = re.findall(r"\[(.*?)\]", output("README.md"))
    mean, exact = (np.array(x.split(), float) for x in printed)
    expected = proofs.load().common.exact_gradient(proofs.quadratic, [0.3, -1.0])
    np.testing.assert_allclose(exact, expected, 1e-6)
    assert np.all(np.abs(mean - exact) < 5 * 0.15 / np.sqrt(100_000))  # sd of one is below .15


@pytest.fixture(scope="module")
def noisy_or(tmp_path_factory):
    """The model of methods/README.md, saved as the page says."""
    code = next(code for page, code in blocks("python") if page == "methods/README.md")
    path = tmp_path_factory.mktemp("mine") / "noisy_or.py"
    path.write_text(code, encoding="utf-8")
    return path


def python(*words):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_model_of_the_methods_page_trains(noisy_or):
    """By REBAR and by RLOO, nearly to minus the entropy of the data.

    But for noise the bound cannot be above that; independent pixels are at 1.44 of it.
    """
    done = python(noisy_or)
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^(\w+) +(-[\d.]+) -> (-[\d.]+) nats$", done.stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == ["rebar", "rloo"]
    p = {"both": 0.4 * 0.81, "one": 0.4 * 0.09}  # of the two pixels of a cause
    entropy = -3 * sum(q * np.log(q) for q in (p["both"], p["one"], p["one"], 1 - 0.4 * 0.99))
    for _, first, last in rows:
        assert float(first) < -1.3 * entropy
        assert float(last) > -1.12 * entropy


def test_the_model_of_the_methods_page_passes_the_check(noisy_or):
    done = python("methods/check.py", noisy_or, "--model")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("V", "prior", "W", "leak"):
        for method in ("rebar", "rloo"):
            assert re.search(rf"^{name} +{method} ", done.stdout, re.MULTILINE)
    assert "unbiased as far as" in done.stdout


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The program of methods/README.md, saved as the page says."""
    code = next(code for _, code in blocks("py") if 'cli.parser("mine"' in code)
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(code, encoding="utf-8")
    return path


def test_the_program_of_the_methods_page_trains(mine, tmp_path):
    """Its C is the moving average of the bounds, which improve; it resumes; and it has a toy."""
    words = [mine, "--hidden", 10, "--eval-samples", 2, "--no-plots", "--out", tmp_path / "run"]
    for more in ([*words, "--steps", 200], [mine, "--resume", tmp_path / "run", "--steps", 220]):
        done = python(*more)
        assert (done.returncode, done.stderr) == (0, "")
    rows = (tmp_path / "run" / "log.csv").read_text(encoding="utf-8").splitlines()
    bounds = [float(row.split(",")[1]) for row in rows[1:]]
    assert bounds[-1] > bounds[0] + 3
    with np.load(tmp_path / "run" / "checkpoint.npz") as file:
        assert file["step_count"] == 220
        assert file["aux"] == pytest.approx(bounds[-1], abs=1.5)
    if importlib.util.find_spec("jax"):
        done = python(*words[:-1], tmp_path / "compiled", "--steps", 40, "--compile")
        assert (done.returncode, done.stderr) == (0, "")
    done = python(mine, "--toy", "--steps", 60, "--no-plots", "--out", tmp_path / "toy")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("moving average θ ")


def test_the_program_of_the_methods_page_can_be_checked_and_compared(mine, tmp_path):
    done = python("methods/check.py", mine, "--model", "--estimates", 32000)
    assert (done.returncode, done.stderr) == (0, "")
    assert "unbiased as far as" in done.stdout
    words = ["--hidden", 10, "--steps", 20, "--eval-samples", 2, "--no-plots"]
    words += ["--methods", "REINFORCE,NVIL,mine", "--out", tmp_path / "run"]
    done = python("methods/compare.py", "--add", mine, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^mine .* yours$", done.stdout, re.MULTILINE)


def torch_example():
    return next(code for _, code in blocks("py") if "import torch" in code)


def test_rebar_for_pytorch_trains():
    pytest.importorskip("torch")
    done = python("-c", torch_example())
    assert (done.returncode, done.stderr) == (0, "")
    first, last = map(float, re.search(r"error ([\d.]+) -> ([\d.]+)", done.stdout).groups())
    assert last < first / 4


def test_rebar_for_pytorch_is_rebar(monkeypatch):
    """Rows of gradients equal those of gradient_samples; and f's own parameters get theirs."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", sys.path[:])
    scope = {}
    exec(torch_example().partition("\nencoder, decoder = ")[0], scope)
    w = torch.tensor([0.5, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    a = np.tile([0.3, -1.0, 0.5], (40, 1))
    logits = torch.tensor(a, requires_grad=True)
    f = lambda b: ((b * w).sum(-1) - 0.3) ** 3
    scope["rebar_mean"](f, logits, np.random.default_rng(1)).backward()
    m = proofs.load()
    ((u, v),) = m.common.draw_noise(np.random.default_rng(1), 40, [3], np.float64)
    in_numpy = lambda b: (m.common.np.sum(b * w.detach().numpy(), axis=-1) - 0.3) ** 3
    expected = m.rebar.gradient_samples(lambda b: in_numpy(b), a[0], u, v, temperature=0.5)
    np.testing.assert_allclose(40 * logits.grad.numpy(), expected, 1e-9, 1e-12)
    b = 1.0 * (a + np.log(u / (1 - u)) > 0)
    by_w = 3 * ((b @ w.detach().numpy() - 0.3) ** 2)[:, None] * b
    np.testing.assert_allclose(w.grad.numpy(), by_w.mean(axis=0), 1e-9)


def commands():
    """(page, words) of every quoted command that starts a program of ours with Python."""
    found = []
    for page in PAGES:
        fenced = "\n".join(text for name, text in FENCE.findall(read(page)) if name == "")
        quoted = re.findall(r"`([^`\n]+)`", FENCE.sub("", read(page)))
        for line in [*fenced.splitlines(), *quoted]:
            for part in line.split("#")[0].split("&&"):
                words = shlex.split(part) if "python" in part else []
                if len(words) > 1 and re.fullmatch(r"(?:\.venv/bin/)?python3?", words[0]):
                    found.append((page, words[1:]))
    return [(page, words) for page, words in found if words[0].endswith(".py")]


class Parsed(BaseException):
    """Raised in the place of whatever the program does after it has parsed its flags."""


def parse(words, monkeypatch):
    """Run a program as a user does, up to and including the parsing of its flags.

    One that has no parser is not run: it must be a program, and quoted without flags.
    """
    program, *flags = words
    path, source = ROOT / program, read(program)
    if not any(name in source for name in ("argparse", "cli.parser(", "Parser(")):
        assert '__name__ == "__main__"' in source
        assert flags == []
        return
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(*arguments, **options):
        parse_args(*arguments, **options)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [str(path), *flags])
    monkeypatch.syspath_prepend(str(path.parent))
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name="__main__")


COMMANDS = [(page, " ".join(words)) for page, words in commands()
            if not PLACEHOLDER.search(" ".join(words))]  # fmt: skip


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_command_is_accepted(page, command, monkeypatch, capsys):
    """By the program's own parser; nothing is run."""
    assert (ROOT / command.split()[0]).exists(), page
    parse(command.split(), monkeypatch)


def test_commands_are_found():
    """Those in blocks and those in a line of text."""
    found = [command for _, command in COMMANDS]
    for command in ("methods/rebar.py", "methods/rebar.py --toy", "data/download.py all",
                    "methods/rebar.py --dataset mnist --layers 2"):  # fmt: skip
        assert command in found


FLAGS = {
    name: sorted(set(re.findall(r"`(--[^`]+)`", section)))
    for name, section in re.findall(
        r"^### (\w+\.py)\n(.*?)(?=^##|\Z)", read("methods/README.md"), re.MULTILINE | re.DOTALL
    )
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_a_method_exist(name, monkeypatch, capsys):
    """Every flag in its section is in the help of the program, and a flag with a value parses."""
    program = f"methods/{name}"
    if not FLAGS[name]:
        return
    with pytest.raises(SystemExit):
        parse([program, "--help"], monkeypatch)
    known = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert {flag.split()[0] for flag in FLAGS[name]} <= known
    for flag in FLAGS[name]:
        if " " in flag and not PLACEHOLDER.search(flag):
            with monkeypatch.context() as patch:
                parse([program, *flag.split()], patch)
