r"""TeX formulas as MathML, which browsers show without a script or a network.

    mathml(r"\mathbb E_{b\sim q}[f(b)]")             # inline
    mathml(r"\sum_b q(b) f(b)", display=True)        # on a line of its own

It knows what the notebooks use, and what is near it. A command that it does not know is a
ValueError that names it.
"""

import re
from html import escape

TOKEN = re.compile(
    r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\S|\s+", re.S
)


def _pairs(text):
    words = text.split()
    return dict(zip(words[::2], words[1::2]))


LETTERS = _pairs("""
    alpha α  beta β  gamma γ  delta δ  epsilon ϵ  varepsilon ε  zeta ζ  eta η  theta θ
    vartheta ϑ  iota ι  kappa κ  mu μ  nu ν  xi ξ  pi π  rho ρ  sigma σ  tau τ  upsilon υ  phi ϕ
    varphi φ  chi χ  psi ψ  omega ω  ell ℓ  imath ı  hbar ℏ  lambda λ
""")
UPRIGHT = _pairs("""
    Gamma Γ  Delta Δ  Theta Θ  Lambda Λ  Xi Ξ  Pi Π  Sigma Σ  Phi Φ  Psi Ψ  Omega Ω  nabla ∇
    partial ∂  infty ∞  emptyset ∅  top ⊤  bot ⊥  forall ∀  exists ∃  dots …  ldots …  cdots ⋯
    vdots ⋮  ddots ⋱  prime ′  checkmark ✓
""")
OPERATORS = _pairs("""
    cdot ⋅  times ×  pm ±  mp ∓  odot ⊙  otimes ⊗  oplus ⊕  circ ∘  ast ∗  le ≤  leq ≤  ge ≥
    geq ≥  ne ≠  neq ≠  approx ≈  equiv ≡  sim ∼  simeq ≃  propto ∝  ll ≪  gg ≫  lesssim ≲
    gtrsim ≳  to →  rightarrow →  leftarrow ←  mapsto ↦  Rightarrow ⇒  Leftarrow ⇐
    Leftrightarrow ⇔  iff ⟺  implies ⟹  uparrow ↑  downarrow ↓  leftrightarrow ↔
    longrightarrow ⟶  notin ∉  subset ⊂  subseteq ⊆  cup ∪  cap ∩  setminus ∖  land ∧  lor ∨
    neg ¬  mid ∣  parallel ∥  perp ⊥  triangleq ≜  colon :  in ∈
""")
FENCES = _pairs("""
    langle ⟨  rangle ⟩  lfloor ⌊  rfloor ⌋  lceil ⌈  rceil ⌉  lvert |  rvert |  Vert ‖  vert |
    lbrace {  rbrace }  backslash ∖
""")
BIG = _pairs("sum ∑  prod ∏  bigcup ⋃  bigcap ⋂  int ∫  oint ∮")
ACCENTS = _pairs("""
    tilde ~  widetilde ~  hat ^  widehat ^  bar ¯  overline ¯  vec →  dot ˙  ddot ¨  check ˇ
""")
NAMES = """
    log exp ln max min sup inf lim arg argmax argmin sin cos tan arcsin sinh cosh tanh
    det dim Pr mod
"""
FUNCTIONS = set(re.findall(r"\w+", NAMES))
LIMITS = {"sum", "prod", "bigcup", "bigcap", "max", "min", "sup", "inf", "lim", "argmax", "argmin"}
SPACES = {",": 0.167, ":": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, "quad": 1, "qquad": 2}
SIZES = {"big": 1.2, "Big": 1.8, "bigg": 2.4, "Bigg": 3.0}
OPEN, CLOSE = set("([{⟨⌊⌈"), set(")]}⟩⌋⌉")
# letters that Unicode keeps elsewhere than the rest of their alphabet
ODD = {"mathcal": _pairs("B ℬ E ℰ F ℱ H ℋ I ℐ L ℒ M ℳ R ℛ"),
       "mathbb": _pairs("C ℂ H ℍ N ℕ P ℙ Q ℚ R ℝ Z ℤ"), "mathbf": {}}  # fmt: skip
# and where their A, a and 0 stand
STARTS = {"mathcal": (0x1D49C, 0x1D4B6, 0), "mathbb": (0x1D538, 0x1D552, 0x1D7D8)}
STARTS["mathbf"] = (0x1D400, 0x1D41A, 0x1D7CE)


def mathml(tex, display=False):
    """A formula as a <math> element; a ValueError says what in it is not understood."""
    body = _Parser(tex, display).all()
    block = ' display="block"' if display else ""
    alt = escape(" ".join(tex.split()), quote=True)
    return f'<math{block} alttext="{alt}">{body}</math>'


def _tag(name, *children, **attributes):
    words = "".join(f' {key.rstrip("_")}="{value}"' for key, value in attributes.items())
    return f"<{name}{words}>{''.join(children)}</{name}>"


def _space(em):
    return f'<mspace width="{em}em"/>'


def _styled(kind, text):
    """Letters of \\mathbb, \\mathcal, \\mathbf: characters of their own in Unicode."""
    upper, lower, digit = STARTS[kind]
    out = []
    for x in text:
        if "A" <= x <= "Z":
            out.append(ODD[kind].get(x) or chr(upper + ord(x) - 65))
        elif "a" <= x <= "z":
            out.append(chr(lower + ord(x) - 97))
        else:
            out.append(chr(digit + int(x)) if x.isdigit() and digit else escape(x))
    return _tag("mi", "".join(out), mathvariant="normal")


class _Parser:
    def __init__(self, tex, display):
        self.tokens = TOKEN.findall(tex.strip())
        self.at, self.display, self.tex = 0, display, tex

    # ---- tokens

    def skip(self):
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1

    def peek(self):
        self.skip()
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self):
        token = self.peek()
        if token is None:
            raise ValueError("it ends too early")
        self.at += 1
        return token

    def expect(self, token):
        if self.peek() != token:
            raise ValueError(f"{token} is missing")
        self.at += 1

    def raw(self):
        """The text of a group, spaces kept."""
        self.expect("{")
        depth, start = 1, self.at
        while depth:
            if self.at >= len(self.tokens):
                raise ValueError("} is missing")
            depth += {"{": 1, "}": -1}.get(self.tokens[self.at], 0)
            self.at += 1
        return "".join(self.tokens[start : self.at - 1])

    # ---- structure

    def all(self):
        rows = self.table(None)
        if len(rows) == 1 and len(rows[0]) == 1:
            return rows[0][0]
        return self.grid(rows, "rl")

    def table(self, end):
        """Rows of cells, up to `end`: & and \\\\ part them."""
        rows = [[]]
        while True:
            rows[-1].append(_tag("mrow", *self.row({"&", "\\\\", end})))
            token = self.peek()
            if token is None and end is not None:
                raise ValueError(f"{end} is missing")
            if token is None or token == end:
                self.at += token is not None
                return rows if len(rows) == 1 or rows[-1] != ["<mrow></mrow>"] else rows[:-1]
            self.at += 1
            if token == "\\\\":
                rows.append([])

    def grid(self, rows, align):
        side = {"r": "right", "l": "left", "c": "center"}
        cell = lambda i, x: _tag("mtd", x, style=f"text-align:{side[align[i % len(align)]]}")
        rows = [_tag("mtr", *(cell(i, x) for i, x in enumerate(row))) for row in rows]
        wide = {"displaystyle": "true"} if self.display else {}
        return _tag("mtable", *rows, **wide)

    def row(self, ends):
        """Elements up to one of `ends`, which stays."""
        out, before = [], "open"
        while (token := self.peek()) is not None and token not in ends:
            if token in ("}", "\\right") or token.startswith("\\end{"):
                raise ValueError(f"{token} without a beginning")
            element, kind = self.scripted(before)
            if kind == "function":
                if before in ("atom", "close", "function"):
                    out.append(_space(0.167))
                after = self.peek()
                out.append(element)
                if (
                    after
                    and after not in ends
                    and after not in list("([),.]|/^_")
                    and not re.match(r"\\(left|big|Big|[,;!:{ ]|q?quad|right)", after)
                ):
                    out.append(_space(0.167))
            else:
                out.append(element)
            before = kind or before
        return out

    def group(self):
        """An argument: a group or one token."""
        if self.peek() == "{":
            self.at += 1
            out = self.row({"}"})
            self.expect("}")
            return _tag("mrow", *out) if len(out) != 1 else out[0]
        if self.peek() and len(self.peek()) > 1 and self.peek()[0].isdigit():  # \frac12
            self.tokens[self.at : self.at + 1] = self.peek()
        return self.atom("open")[0]

    def scripted(self, before):
        token = self.peek()
        if token in ("^", "_"):
            element, kind = "<mrow></mrow>", "atom"
        else:
            element, kind = self.atom(before)
        limits = (self.display and token[1:] in LIMITS) or token in ("\\underbrace", "\\overbrace")
        sub = sup = None
        while (script := self.peek()) in ("^", "_", "'"):
            if script == "'":
                self.at += 1  # of a text font, where a prime is raised already
                prime = _tag("mtext", "′", style="font-family:Georgia,serif")
                element = _tag("mrow", element, prime)
                continue
            self.at += 1
            if script == "^":
                sup = _tag("mrow", sup, self.group()) if sup else self.group()
            elif sub:
                raise ValueError("two lower indices")
            else:
                sub = self.group()
        if sub and sup:
            element = _tag("munderover" if limits else "msubsup", element, sub, sup)
        elif sub:
            element = _tag("munder" if limits else "msub", element, sub)
        elif sup:
            element = _tag("mover" if limits else "msup", element, sup)
        return element, kind

    # ---- one element, and what it is: atom, operator, open, close, function or None

    def atom(self, before):
        token = self.take()
        if token == "{":
            self.at -= 1
            if self.tokens[self.at : self.at + 3] == ["{", ",", "}"]:  # 1{,}000
                self.at += 3
                return _tag("mtext", ","), "atom"
            return self.group(), "atom"
        if token[0] == "\\":
            return self.command(token[1:], before)
        if token[0].isdigit():
            return _tag("mn", token), "atom"
        if token.isalpha():
            return _tag("mi", token), "atom"
        if token == "~":
            return _space(0.25), None
        return self.symbol(token, before)

    def symbol(self, x, before):
        if x in OPEN or x in CLOSE:
            return _tag("mo", x, stretchy="false"), "open" if x in OPEN else "close"
        if x in "|‖":
            return _tag("mo", x, stretchy="false", lspace="0", rspace="0"), "atom"
        if x in "/.!":
            return _tag("mo", x, lspace="0", rspace="0"), "close" if x == "!" else "atom"
        sign = x in "-+±∓" and before in ("open", "operator")
        text = {"-": "−", "*": "∗"}.get(x, escape(x))
        return _tag("mo", text, **({"form": "prefix"} if sign else {})), "operator"

    def command(self, name, before):
        if name in LETTERS:
            return _tag("mi", LETTERS[name]), "atom"
        if name in UPRIGHT:
            return _tag("mi", UPRIGHT[name], mathvariant="normal"), "atom"
        if name in OPERATORS:
            return self.symbol(OPERATORS[name], before)
        if name in FENCES or name in list("{}|"):
            return self.symbol(FENCES.get(name, "‖" if name == "|" else name), before)
        if name in BIG:
            return _tag("mo", BIG[name]), "function"
        if name == "bmod":
            name = "mod"
        if name in FUNCTIONS:
            return _tag("mi", name, mathvariant="normal"), "function"
        if name in SPACES:
            return _space(SPACES[name]), None
        if name in ("%", "&", "#", "$", "_"):
            return _tag("mtext", escape(name)), "atom"
        if name in ("text", "mathrm", "textbf", "textit", "operatorname", "mbox"):
            kind = "function" if name == "operatorname" else "atom"
            return _tag("mtext", escape(self.raw()).replace(" ", "\u00a0")), kind
        if name in ("mathbb", "mathcal", "mathbf", "boldsymbol"):
            if name == "boldsymbol":
                return _tag("mrow", self.group(), style="font-weight:bold"), "atom"
            return _styled(name, self.raw() if self.peek() == "{" else self.take()), "atom"
        if name in ("frac", "tfrac", "dfrac", "binom"):
            return self.fraction(name), "atom"
        if name == "sqrt":
            if self.peek() != "[":
                return _tag("msqrt", self.group()), "atom"
            self.at += 1
            index = _tag("mrow", *self.row({"]"}))
            self.expect("]")
            return _tag("mroot", self.group(), index), "atom"
        if name in ACCENTS:
            wide = "true" if name.startswith(("wide", "over")) else "false"
            mark = _tag("mo", ACCENTS[name], stretchy=wide)
            return _tag("mover", self.group(), mark, accent="true"), "atom"
        if name in ("overset", "stackrel"):
            above = self.group()
            return _tag("mover", self.group(), above), "operator"
        if name == "underset":
            below = self.group()
            return _tag("munder", self.group(), below), "function"
        if name in ("underbrace", "overbrace"):
            brace = _tag("mo", "⏟" if name == "underbrace" else "⏞", stretchy="true")
            return _tag("munder" if name == "underbrace" else "mover", self.group(), brace), "atom"
        if name == "boxed":
            return _tag("mrow", self.group(), style="border:1px solid;padding:.3em"), "atom"
        if name == "tag":
            return _space(2) + _tag("mtext", f"({escape(self.raw())})"), "atom"
        size = name.rstrip("lrm")
        if size in SIZES or name in SIZES:
            return self.sized(SIZES[size])
        if name == "left":
            left = self.fence()
            out = self.row({"\\right"})
            self.expect("\\right")
            return _tag("mrow", left, *out, self.fence()), "atom"
        if name.startswith("begin{"):
            return self.environment(name[6:-1])
        if name in ("displaystyle", "textstyle", "limits", "nolimits", "nonumber", "notag"):
            return "", None
        raise ValueError(f"unknown command \\{name}")

    def fraction(self, name):
        above, below = self.group(), self.group()
        if name == "binom":
            bare = _tag("mfrac", above, below, linethickness="0")
            return _tag("mrow", "<mo>(</mo>", bare, "<mo>)</mo>")
        out = _tag("mfrac", above, below)
        if name == "frac":
            return out
        return _tag("mstyle", out, displaystyle="true" if name == "dfrac" else "false")

    def delimiter(self):
        token = self.take()
        name = token[1:] if token[0] == "\\" else token
        return FENCES.get(name, "‖" if token == "\\|" else name)

    def fence(self):
        x = self.delimiter()
        return "" if x == "." else _tag("mo", escape(x), stretchy="true", fence="true")

    def sized(self, em):
        x = self.delimiter()
        kind = "open" if x in OPEN else "close" if x in CLOSE else "atom"
        return _tag("mo", escape(x), stretchy="false", style=f"font-size:{em}em"), kind

    def environment(self, name):
        columns = self.raw() if name == "array" else ""
        rows = self.table(f"\\end{{{name}}}")
        if name == "cases":
            brace = _tag("mo", "{", stretchy="true", fence="true")
            return _tag("mrow", brace, self.grid(rows, "l")), "atom"
        pairs = {"matrix": "", "pmatrix": "()", "bmatrix": "[]", "vmatrix": "||", "array": ""}
        if name in pairs:
            align = re.sub("[^lcr]", "", columns) or "c"
            sides = [_tag("mo", x, stretchy="true", fence="true") for x in pairs[name]] or ["", ""]
            return _tag("mrow", sides[0], self.grid(rows, align), sides[1]), "atom"
        if name.rstrip("*") in ("aligned", "align", "split", "equation", "gathered", "gather"):
            return self.grid(rows, "c" if "gather" in name else "rl"), "atom"
        raise ValueError(f"unknown environment {name}")
