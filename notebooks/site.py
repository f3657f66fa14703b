"""Write the course as web pages that need no network: chapters, exercises, figures, formulas.

    python notebooks/site.py --to DIR          # then open DIR/index.html
    python notebooks/site.py --to DIR --pdf    # and DIR/course.pdf, to print

The index is notebooks/README.md. Files of the project that the course links to are written as pages
too, but not what only those link to. Formulas are MathML, and figures are inside their pages.
Solutions and what is for teachers only are left out. The PDF needs a browser (chromium or chrome).
"""

import argparse
import base64
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

import mistune
import nbformat
import release
from mathml import mathml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
HOME = HERE.parent
INDEX = HERE / "README.md"
HIDDEN = [HERE / "solutions", HERE / "variants", HERE / "rubrics.md"]  # not for students
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
            "microsoft-edge"]  # fmt: skip
MARK = '<meta name="generator" content="notebooks/site.py">'
STYLE = """
body { max-width: 46rem; margin: 0 auto; padding: 1rem; color: #222;
  font: 17px/1.55 Georgia, serif }
nav { font: 14px sans-serif; display: flex; justify-content: space-between; gap: 1rem }
h1, h2, h3 { font-family: sans-serif; line-height: 1.25 }
a { color: #0b57a4 }
pre { background: #f6f6f6; padding: .6rem; overflow-x: auto; font-size: 13px; line-height: 1.4 }
pre.output { background: none; border-left: 3px solid #ccc }
code { font-size: .85em; background: #f6f6f6 }
pre code { font-size: 1em }
img { max-width: 100%; height: auto }
figure { margin: 1rem 0; text-align: center }
table { border-collapse: collapse; font-size: .92em; margin: 1rem 0 }
th, td { border: 1px solid #ccc; padding: .25rem .5rem; text-align: left; vertical-align: top }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "XITS Math",
  "DejaVu Math TeX Gyre", math, serif }
math[display=block] { margin: .9rem 0; overflow-x: auto; overflow-y: hidden; padding: .2rem 0 }
mtable { border: 0 } mtd { border: 0; padding: .15em .2em }
.answer { border-left: 3px solid #c60; padding-left: .8rem }
@media print {
  nav { display: none } body { max-width: none; font-size: 11pt } pre { white-space: pre-wrap }
  @page { margin: 16mm } section { break-before: page }
  figure, math[display=block] { break-inside: avoid }
}
"""

# ---------------------------------------------------------------------------- Markdown and formulas

CODE = r"(?P<code>```.*?```|~~~.*?~~~|(?P<tick>`+)(?!`).*?(?<!`)(?P=tick)(?!`))"
MATH = re.compile(
    CODE + r"|\$\$(?P<block>.+?)\$\$|\\\$|\$(?P<inline>[^\s$](?:[^$\n]|\n(?!\n))*?)(?<=\S)\$(?!\d)",
    re.DOTALL,
)


def slug(text):
    """The id of a heading, as Jupyter and GitHub make it."""
    return re.sub(r"[^\w\- ]", "", html.unescape(text).strip().lower()).replace(" ", "-")


class Renderer(mistune.HTMLRenderer):
    """HTML with ids of headings, and with links that go to the pages of this site."""

    def __init__(self, link):
        super().__init__(escape=False)
        self.where = link

    def heading(self, text, level, **attributes):
        plain = slug(re.sub(r"<annotation>.*?</annotation>|<[^>]+>", "", text))
        return f'<h{level} id="{html.escape(plain)}">{text}</h{level}>\n'

    def link(self, text, url, title=None):
        target = self.where(url)
        return text if target is None else f'<a href="{html.escape(target)}">{text}</a>'

    def image(self, text, url, title=None):
        source = self.where(url, image=True)
        return f'<img src="{html.escape(source or "")}" alt="{html.escape(text)}">'

    def block_code(self, code, info=None):
        if (info or "").startswith("python"):
            return coloured(code)
        return f"<pre><code>{html.escape(code)}</code></pre>\n"


def coloured(code):
    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=False))


def markdown(text, link, complain):
    """HTML of Markdown with $formulas$; `complain(message)` hears of those not understood."""
    formulas = []

    def keep(match):
        tex = match["block"] or match["inline"]
        if tex is None:
            return match[0]
        try:
            formulas.append(mathml(tex, display=bool(match["block"])))
        except ValueError as error:
            complain(f"formula {tex[:60]!r}: {error}")
            formulas.append(f"<code>{html.escape(tex)}</code>")
        return f"\ue000{len(formulas) - 1}\ue001"

    text = MATH.sub(keep, text)
    render = mistune.create_markdown(renderer=Renderer(link), plugins=["table", "strikethrough"])
    page = render(text)
    return re.sub("\ue000(\\d+)\ue001", lambda m: formulas[int(m[1])], page)


# ---------------------------------------------------------------------------------------- the pages


class Site:
    """Pages by source file; a link to a file makes a page of it."""

    def __init__(self, to):
        self.to, self.pages, self.queue, self.complaints = to, {}, [], []

    def target(self, source):
        """Where the page of a source file lies, relative to the site."""
        if source == INDEX:
            return "index.html"
        name = source.relative_to(HOME).as_posix()
        if source.suffix in (".ipynb", ".md"):
            return f"{name.removesuffix(source.suffix)}.html"
        return name if source.suffix in (".png", ".npz", ".json", ".csv") else f"{name}.html"

    def linker(self, source):
        def link(url, image=False):
            if re.match(r"[a-zA-Z][\w+.-]*:", url):  # elsewhere; pictures are never fetched
                return None if image else url
            path, _, fragment = url.partition("#")
            file = (source.parent / unquote(path)).resolve() if path else source
            if file.is_dir():
                file = file / "README.md"
            if any(x == file or x in file.parents for x in HIDDEN) or HOME not in file.parents:
                return None
            if not file.is_file():
                if file.name != "README.md":
                    self.complaints.append(f"{source.name}: link to {url}, which is no file")
                return None
            if image and file.suffix == ".png":
                return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
            if HERE in source.parents:
                self.add(file)
            elif file not in self.pages:
                return None
            start = Path(self.target(source)).parent
            way = os.path.relpath(self.target(file), start).replace(os.sep, "/")
            way = "" if file == source else quote(way)
            return way + (f"#{fragment}" if fragment and file.suffix != ".py" else "") or "#"

        return link

    def add(self, source):
        if source not in self.pages:
            self.pages[source] = None
            self.queue.append(source)

    def build(self):
        while self.queue:  # the course first: pages from elsewhere link to what there is then
            source = next((x for x in self.queue if HERE in x.parents), self.queue[0])
            self.queue.remove(source)
            complain = lambda message: self.complaints.append(f"{source.name}: {message}")
            link = self.linker(source)
            if source.suffix == ".ipynb":
                self.pages[source] = self.notebook(source, link, complain)
            elif source.suffix == ".md":
                text = source.read_text(encoding="utf-8")
                self.pages[source] = markdown(text, link, complain)
            elif self.target(source).endswith(".html"):
                text = source.read_text(encoding="utf-8", errors="replace")
                body = (
                    coloured(text) if source.suffix == ".py" else f"<pre>{html.escape(text)}</pre>"
                )
                self.pages[source] = f"<h1>{source.name}</h1>\n{body}"
        return self

    def notebook(self, source, link, complain):
        parts, title = [], source.stem
        for cell in nbformat.read(source, as_version=4).cells:
            if cell.cell_type == "markdown":
                body = markdown(cell.source, link, complain)
                headings = re.findall(r"<h\d[^>]*>(.*?)</h\d>", body)
                title = re.sub(r"<[^>]+>", "", headings[-1]) if headings else title
                answer = cell.metadata.get("nbgrader", {}).get("solution")
                parts.append(f'<div class="answer">{body}</div>' if answer else body)
            elif cell.cell_type == "code":
                parts.append(coloured(cell.source))
                parts += [shown(output, cell, title) for output in cell.get("outputs", [])]
        pieces = "\n".join(parts)
        return pieces.replace('</pre>\n<pre class="output">', "")  # lines of one cell

    # ---- files

    def order(self):
        """The chapters in their order: what "next" and "back" mean."""
        return [INDEX, *sorted(p for p in self.pages if p.suffix == ".ipynb" and p.parent == HERE)]

    def page(self, source):
        here = Path(self.target(source)).parent
        way = lambda name: quote(os.path.relpath(name, here).replace(os.sep, "/"))
        order = self.order()
        links = [f'<a href="{way("index.html")}">The course</a>']
        if source in order:
            at = order.index(source)
            back = order[at - 1] if at else None
            more = order[at + 1] if at + 1 < len(order) else None
            for other, words in ((back, "back"), (more, "next")):
                links.append(f'<a href="{way(self.target(other))}">{words}</a>' if other else "")
        body = self.pages[source]
        title = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
        title = re.sub(r"<[^>]+>", "", title[1]) if title else source.name
        head = f'<link rel="stylesheet" href="{way("style.css")}">'
        return document(title, head, f"<nav>{' '.join(links)}</nav>\n<main>\n{body}\n</main>")

    def write(self):
        self.to.mkdir(parents=True, exist_ok=True)
        style = STYLE + HtmlFormatter().get_style_defs(".highlight")
        (self.to / "style.css").write_text(style, encoding="utf-8", newline="\n")
        for source, body in tqdm(self.pages.items(), unit="page", disable=None):
            file = self.to / self.target(source)
            file.parent.mkdir(parents=True, exist_ok=True)
            if body is None:
                shutil.copyfile(source, file)
            else:
                file.write_text(self.page(source), encoding="utf-8", newline="\n")

    def printable(self):
        """One document: the index, the chapters, the exercises; links inside it stay inside."""
        course = self.order()
        course += sorted(p for p in self.pages if p.parent == HERE / "exercises")
        names = {self.target(source): f"page-{i}" for i, source in enumerate(course)}
        sections = []
        for source in course:
            here = Path(self.target(source)).parent

            def inside(match, here=here):
                path = unquote(match[1].partition("#")[0])
                if re.match(r"[a-z]+:", match[1]):
                    return match[0]
                file = os.path.normpath(here / path).replace(os.sep, "/")
                return f'href="#{names[file]}"' if file in names else ""

            body = re.sub(r' id="[^"]*"', "", self.pages[source])
            body = re.sub(r'href="([^"]*)"', inside, body)
            sections.append(f'<section id="{names[self.target(source)]}">{body}</section>')
        style = f"<style>{STYLE}{HtmlFormatter().get_style_defs('.highlight')}</style>"
        return document("Gradient estimation: the course", style, "\n".join(sections))


def document(title, head, body):
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n{head}</head>\n<body>\n{body}\n</body></html>\n"
    )


def shown(output, cell, title):
    """An output of a code cell."""
    data = output.get("data", {})
    if "image/png" in data:
        said = output.get("metadata", {}).get("image/png", {}).get("alt")
        said = said or output.get("metadata", {}).get("alt") or cell.metadata.get("alt")
        said = html.escape(said or f"Figure: {html.unescape(title)}", quote=True)
        image = "".join(data["image/png"].split())
        return f'<figure><img src="data:image/png;base64,{image}" alt="{said}"></figure>'
    text = output.get("text") or data.get("text/plain") or "\n".join(output.get("traceback", []))
    if any("widget" in kind for kind in data):  # a slider is for a running notebook
        return ""
    text = re.sub(r"\x1b\[[\d;]*m", "", "".join(text))
    return f'<pre class="output">{html.escape(text)}</pre>'


# ------------------------------------------------------------------------------------------ the PDF


def browser():
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def print_pdf(program, page, to):
    """Let a browser print an HTML file; a ValueError in one line if it does not."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--disable-gpu", "--no-sandbox", "--no-pdf-header-footer",
                 f"--user-data-dir={profile}", f"--print-to-pdf={to}"]  # fmt: skip
        try:
            done = subprocess.run([program, *flags, page.as_uri()], check=False, timeout=600,
                                  capture_output=True, text=True, errors="replace")  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{program} does not print: {type(error).__name__}") from error
    if not to.exists():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"{program} does not print: {last:.200}")


def main(argv=None):
    layout = argparse.RawDescriptionHelpFormatter
    p = release.Parser(description=__doc__, allow_abbrev=False, formatter_class=layout)
    p.add_argument("--to", required=True, metavar="DIR", help="a new folder, or an older site")
    p.add_argument("--pdf", action="store_true", help="print DIR/course.pdf as well")
    args = p.parse_args(argv)
    if not args.to.strip():
        p.error("--to: it is empty; name a folder")
    to = Path(args.to).resolve()
    index = to / "index.html"
    if to.exists() and not to.is_dir():
        p.error(f"--to: {args.to} is no folder")
    if to.is_dir() and any(to.iterdir()) and not (
        index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    ):  # fmt: skip
        p.error(f"--to: {args.to} has other files in it; name a new folder")
    program = browser()
    if args.pdf and not program:
        p.error(f"--pdf: it needs a browser, one of {', '.join(BROWSERS)}; none is installed")
    site = Site(to)
    for source in [INDEX, *sorted(HERE.glob("*.ipynb")), *sorted(HERE.glob("exercises/*.ipynb"))]:
        site.add(source)
    try:
        site.build().write()
        if args.pdf:
            with tempfile.TemporaryDirectory() as folder:
                page = Path(folder) / "course.html"
                page.write_text(site.printable(), encoding="utf-8")
                print_pdf(program, page, to / "course.pdf")
    except ValueError as error:
        p.error(str(error))
    except OSError as error:
        p.error(f"--to: cannot write {error.filename or to}: {error.strerror or error}")
    for line in site.complaints:
        print(f"{p.prog}: note: {line}", file=sys.stderr)
    print(f"{len(site.pages)} pages; open {to / 'index.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
