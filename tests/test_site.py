"""notebooks/site.py: whole pages without a network, with every formula and every figure."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import proofs
import pytest

NOTEBOOKS = proofs.METHODS.parent / "notebooks"
SOURCES = [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("exercises/*.ipynb")]


def load(name):
    """A file of notebooks/, which is not on the path: `site` would hide Python's own."""
    sys.path.insert(0, str(NOTEBOOKS))
    try:
        spec = importlib.util.spec_from_file_location(f"course_{name}", NOTEBOOKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(NOTEBOOKS))
    return module


site = load("site")
mathml = site.mathml


def formulas(path):
    """[(TeX, whether on a line of its own)] of a notebook's text."""
    cells = nbformat.read(path, as_version=4).cells
    found = []
    for text in (cell.source for cell in cells if cell.cell_type == "markdown"):
        for match in site.MATH.finditer(text):
            tex = match["block"] or match["inline"]
            found += [(tex, bool(match["block"]))] if tex else []
    return found


class Page(HTMLParser):
    """What a page loads, links to, and shows."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self.images, self.text = [], [], set(), [], []
        self.math, self.inside = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.ids.add(facts.get("id"))
        self.math += tag == "math"
        if tag in ("code", "pre", "style"):
            self.inside.append(tag)
        if tag == "a":
            self.links.append(facts.get("href", ""))
        for key in ("src", "srcset", "data", "poster") + (("href",) if tag == "link" else ()):
            if key in facts:
                self.loads.append(facts[key])
        assert tag not in ("script", "iframe", "object", "embed")
        if tag == "img":
            self.images.append(facts)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, text):
        if not self.inside:
            self.text.append(text)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{path relative to the site: its Page}, of the site that the program writes."""
    to = tmp_path_factory.mktemp("web") / "course"
    command = [sys.executable, NOTEBOOKS / "site.py", "--to", to]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "note:" not in done.stderr, done.stderr  # a formula or a link that it did not understand
    found = {
        file.relative_to(to).as_posix(): Page(file.read_text(encoding="utf-8"))
        for file in to.rglob("*.html")
    }
    return to, found


def target(source):
    return f"notebooks/{source.relative_to(NOTEBOOKS).with_suffix('.html').as_posix()}"


# ---------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}-{path.stem[:2]}")
def test_every_formula_becomes_mathml(path):
    found = formulas(path)
    assert len(found) > 3
    for tex, display in found:
        root = ET.fromstring(mathml(tex, display))
        assert root.tag == "math"
        words = "".join(x.text or "" for x in root.iter())
        assert "\\" not in words.replace("\\{", ""), tex
        # letters and digits of the formula are all there, in any alphabet
        bare = re.sub(r"\\(begin|end)\{[^}]*\}|\\[a-zA-Z]+", "", tex)
        for digit in "0123456789":
            assert sum(map(words.count, (digit, site_digit(digit)))) >= bare.count(digit), tex


def site_digit(digit):
    return chr(0x1D7D8 + int(digit))  # double-struck, as in the indicator


def test_formulas_mean_what_tex_means():
    inner = lambda tex, **how: re.sub(r"<math[^>]*>|</math>", "", mathml(tex, **how))
    row = lambda text: f"<mrow>{text}</mrow>"
    x, n = "<mi>x</mi>", "<mi>n</mi>"
    assert inner("x^2_n") == row(f"<msubsup>{x}{n}<mn>2</mn></msubsup>")
    assert inner(r"\frac12") == row("<mfrac><mn>1</mn><mn>2</mn></mfrac>")
    assert inner("x^10") == row(f"<msup>{x}<mn>1</mn></msup><mn>0</mn>")
    assert inner(r"\mathbb E") == row('<mi mathvariant="normal">𝔼</mi>')
    assert inner(r"\mathcal{LN}") == row('<mi mathvariant="normal">ℒ𝒩</mi>')
    assert "<munder>" in inner(r"\sum_x x", display=True)
    assert "<msub>" in inner(r"\sum_x x")
    assert 'form="prefix">−' in inner("x=-1")
    assert 'form="prefix"' not in inner("x-1")
    assert inner(r"\tilde z").count('accent="true"') == 1
    assert (
        inner("f'(x)").index("<mi>f</mi>") < inner("f'(x)").index("′") < inner("f'(x)").index("(")
    )
    assert inner(r"\left(x\right)").count('stretchy="true"') == 2
    assert inner(r"a < b").count("&lt;") == 1
    lines = inner(r"\begin{aligned} x &= 1 \\ n &= 2 \end{aligned}")
    assert (lines.count("<mtr>"), lines.count("<mtd ")) == (2, 4)
    assert "{" in inner(r"\begin{cases} 1 & x>0 \\ 0 & x\le 0 \end{cases}")
    for bad, words in ((r"\nosuch x", r"unknown command \nosuch"), ("{x", "} is missing"),
                       ("x}", "} without a beginning"), (r"\frac1", "ends too early"),
                       (r"\left(x", r"\right is missing"), ("x_1_2", "two lower indices"),
                       (r"\begin{foo}x\end{foo}", "unknown environment foo")):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(words)):
            mathml(bad)


def test_dollars_in_code_and_prices_are_no_formulas():
    heard = []
    link = lambda url, image=False: url
    page = site.markdown(r"`a $x$ b` costs \$5 or $y$ and $5 and $6.", link, heard.append)
    assert page.count("<math") == 1
    assert "a $x$ b" in page
    site.markdown(r"$\nosuch$", link, heard.append)
    assert heard == [r"formula '\\nosuch': unknown command \nosuch"]


# ------------------------------------------------------------------------------------------- pages


def test_pages_load_nothing_from_elsewhere(pages):
    for name, page in pages[1].items():
        for what in page.loads:
            assert what.startswith("data:image/png;base64,") or not re.match(r"\w+:|//", what), name
    style = (pages[0] / "style.css").read_text("utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_links_and_anchors_lead_somewhere(pages):
    to, found = pages
    assert "index.html" in found
    count = 0
    for name, page in found.items():
        for link in [*page.links, *page.loads]:
            if re.match(r"(https?|mailto|data):", link):
                continue
            path, _, fragment = link.partition("#")
            file = (to / name).parent / unquote(path) if path else to / name
            assert file.is_file(), f"{name}: {link}"
            inside = Path(os.path.normpath(file)).relative_to(to).as_posix()
            if fragment:
                assert unquote(fragment) in found[inside].ids, f"{name}: {link}"
            count += 1
    assert count > 100
    for source in SOURCES:  # all in reach of the index
        way = target(source)
        assert any(unquote(x) == way for x in found["index.html"].links), way


def test_pages_have_all_formulas_and_figures(pages):
    for source in SOURCES:
        page = pages[1][target(source)]
        assert page.math == len(formulas(source))
        text = "".join(page.text)
        assert "$" not in text
        assert "\ue000" not in text
        cells = nbformat.read(source, as_version=4).cells
        drawn = sum("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", []))
        assert sum(x["src"].startswith("data:image/png") for x in page.images) >= drawn
        assert all(x["alt"] for x in page.images)


def test_solutions_stay_with_the_teacher(pages):
    assert not any("solutions" in name or "rubric" in name for name in pages[1])
    answers = 0
    for path in (NOTEBOOKS / "solutions").glob("*.ipynb"):
        page = "".join(pages[1][f"notebooks/exercises/{path.stem}.html"].text)
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown" and cell.metadata.get("nbgrader", {}).get("solution"):
                words = max(re.split(r"[$*`\n]", cell.source), key=len)
                assert words not in page, words
                answers += len(words) > 30
    assert answers > 9


def test_site_overwrites_nothing_but_a_site(pages, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(site, "browser", lambda: None)
    for flags, words in (
        (["--to", str(tmp_path / "mine")], "has other files in it"),
        (["--to", str(tmp_path / "file")], "is no folder"),
        (["--to", ""], "it is empty"),
        ([], "--to"),
        (["--to", str(tmp_path / "new"), "--pdf"], "needs a browser"),
    ):
        with pytest.raises(SystemExit) as end:
            site.main(flags)
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert [x.name for x in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    site.main(["--to", str(pages[0])])  # again, over the older one


MEASURE = """<script>
addEventListener("load", () => {
  const maths = [...document.querySelectorAll("math")].map(x => x.getBoundingClientRect());
  const images = [...document.querySelectorAll("img")];
  const bad = maths.filter(x => x.width < 4 || x.height < 6).length;
  const blank = images.filter(x => !x.complete || x.naturalWidth < 50).length;
  const wide = document.documentElement.scrollWidth > innerWidth + 2;
  const style = getComputedStyle(document.querySelector("main")).fontFamily;
  document.title = ["measured", maths.length, bad, images.length, blank, wide, style].join("|");
});
</script>"""


@pytest.mark.parametrize("name", ["05_rebar", "exercises/07_dvae_sharp"])
def test_a_browser_shows_formulas_and_figures(pages, name, tmp_path):
    program = site.browser()
    if program is None:
        pytest.skip("no browser is installed")
    file = pages[0] / f"notebooks/{name}.html"
    probe = file.with_name("probe.html")  # a copy that measures itself
    probe.write_text(file.read_text("utf-8").replace("</head>", MEASURE + "</head>"), "utf-8")
    flags = ["--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={tmp_path}",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000"]  # fmt: skip
    try:
        done = subprocess.run([program, *flags, "--dump-dom", probe.as_uri()], check=False,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
    finally:
        probe.unlink()
    title = re.search(r"<title>measured\|(.*?)</title>", done.stdout)
    assert title, done.stderr[-500:]
    maths, small, images, blank, wide, font = title[1].split("|")
    expected = pages[1][f"notebooks/{name}.html"]
    assert int(maths) == expected.math
    assert (int(small), int(blank), wide) == (0, 0, "false")
    assert int(images) == len(expected.images)
    assert "Georgia" in font  # style.css has arrived


@pytest.mark.slow
def test_a_browser_prints_the_course(tmp_path):
    if site.browser() is None:
        pytest.skip("no browser is installed")
    site.main(["--to", str(tmp_path / "course"), "--pdf"])
    printed = (tmp_path / "course" / "course.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert pages > 3 * len(SOURCES) / 2
    assert printed.count(b"/Subtype /Image") > 20
