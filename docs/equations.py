"""Equations of docstrings as MathML, which browsers set by themselves: a Markdown extension of the site.

    tau dV/dt = V^2 - (pi tau r)^2 + J tau r + eta + u

A paragraph is one of equations when most of its lines are and none ends as a sentence; a line that starts with an
operator goes on from the one above. What is written is what is set: `^` raises, `_` lowers, `a / b` is a fraction of
the factors beside it, Greek names are letters, `sqrt(x)` is a root, and three or more plain words in a row are text.
"""

import re
import xml.etree.ElementTree as ET

from markdown import Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.extensions import Extension

LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
GREEK = dict(zip(LETTERS.split(), "αβγδεζηθικλμνξπρστφχψω", strict=True)) | {"inf": "∞", "infinity": "∞"}
CAPITALS = "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"  # the others look like Latin letters
GREEK |= {name: GREEK[name.lower()].upper() for name in CAPITALS.split()}
WORDS = {"if", "and", "for", "with", "else", "where", "of", "over", "otherwise", "or", "in", "is"}
UPRIGHT = {
    "exp",
    "log",
    "sin",
    "cos",
    "tan",
    "tanh",
    "max",
    "min",
    "mean",
    "var",
    "sd",
    "cov",
    "corr",
    "erf",
    "sign",
    "det",
}
LARGE = {"sum": "∑", "int": "∫"}
SIGNS = {"<=": "≤", ">=": "≥", "!=": "≠", "->": "→", "-": "−", "*": "·", "...": "…", "+-": "±", "==": "="}
TOKEN = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)*(?:e-?\d+)?)|(?P<name>[A-Za-z][A-Za-z0-9]*'*|[^\W\d_]'*)"
    r"|(?P<code>`[^`]+`|\"[^\"]*\")|(?P<sign><=|>=|!=|==|->|\+-|\.\.\.|[^\w\s])|(?P<low>_)|(?P<gap>\s+)"
)
HEAD = re.compile(r"^(?!>>>|[-*#`|])(?:\w+=\"[\w-]+\": +)?[^=<>~:`\"]{1,48}?\s(?:=|~|<=|>=|in)\s(?:\S.*)?[^\s.,:;]$")
GOES_ON = re.compile(r"^\s+[+\-*/=]\s(?:\S.*)?[^\s.,:;]$")
CLOSE = {"(": ")", "[": "]", "{": "}"}


def tag(name: str, *inside: "ET.Element | str", **attributes: str) -> ET.Element:
    """An element with text or children."""
    element = ET.Element(name, attributes)
    for one in inside:
        if isinstance(one, str):
            element.text = one
        else:
            element.append(one)
    return element


class Line:
    """Reader of one equation by recursive descent.

    Rows of factors, each with its indices, and fractions of two factors.
    """

    def __init__(self, text: str) -> None:
        self.tokens = [(m.lastgroup or "", m[0]) for m in TOKEN.finditer(text)]
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        self.at += 1
        return self.tokens[self.at - 1]

    def row(self, until: str = "") -> list[ET.Element]:
        """What stands side by side, to a closing bracket."""
        out: list[ET.Element] = []
        while self.peek()[0] != "end" and not (until and self.peek()[1] == until):
            kind, text = self.peek()
            if kind == "gap":
                self.take()
                beside = (
                    out and out[-1].tag != "mo" and (self.peek()[0] in ("name", "number") or self.peek()[1] in CLOSE)
                )
                if beside or len(text) > 2:
                    out.append(tag("mspace", width="1.5em" if len(text) > 2 else ".2em"))
            elif text == "/" and out and out[-1].tag != "mo":
                self.take()
                while self.peek()[0] == "gap":
                    self.take()
                above = out.pop()
                out.append(tag("mfrac", *map(bare, (above, self.factor()))))
            else:
                out.append(self.factor())
        return out

    def factor(self) -> ET.Element:
        """An atom with what is lowered and raised."""
        base, low, high = self.atom(), None, None
        while self.peek()[1] in ("_", "^"):
            if self.take()[1] == "_":
                low = bare(self.atom(index=True))
            else:
                high = bare(self.signed())
        if low is not None and high is not None:
            return tag("msubsup", base, low, high)
        if low is not None or high is not None:
            return tag("msub" if high is None else "msup", base, low if high is None else high)
        return base

    def signed(self) -> ET.Element:
        if self.peek()[1] == "-":
            self.take()
            return tag("mrow", tag("mo", "−"), self.atom())
        return self.atom()

    def atom(self, index: bool = False) -> ET.Element:
        kind, text = self.take() if self.peek()[0] != "end" else ("end", "")
        if kind == "number":
            return tag("mn", text)
        if kind == "code" or text in WORDS:
            return tag("mtext", f"\N{NO-BREAK SPACE}{text.strip('`')}\N{NO-BREAK SPACE}")
        if kind == "name":
            if text == "sqrt" and self.peek()[1] == "(":
                return tag("msqrt", bare(self.atom()))
            return name(text)
        if text in CLOSE:
            inside = self.row(CLOSE[text])
            closed = self.take()[1] if self.peek()[0] != "end" else ""
            return tag("mrow", tag("mo", text), *inside, *([tag("mo", closed)] if closed else []))
        return tag("mo", SIGNS.get(text, text))


def name(text: str) -> ET.Element:
    """An identifier: d of a derivative apart, Greek as letters, trailing digits lowered."""
    plain, primes = text.rstrip("'"), "′" * text.count("'")
    if plain in LARGE:
        return tag("mo", LARGE[plain])
    if plain in UPRIGHT:
        return tag("mi", plain, mathvariant="normal")
    if plain[0] == "d" and plain[1:] in GREEK:
        return tag("mrow", tag("mi", "d"), tag("mi", GREEK[plain[1:]] + primes))
    found = re.fullmatch(r"([A-Za-z]+?)(\d+)", plain)
    if found:
        return tag("msub", tag("mi", GREEK.get(found[1], found[1]) + primes), tag("mn", found[2]))
    return tag("mi", GREEK.get(plain, plain) + primes)


def bare(element: ET.Element) -> ET.Element:
    """Without the brackets around it: a fraction, a root and an index need none."""
    if element.tag == "mrow" and len(element) > 1 and element[0].text == "(" and element[-1].text == ")":
        return tag("mrow", *element[1:-1])
    return element


def mathml(line: str) -> ET.Element:
    """One line as an element: text where words follow each other, mathematics elsewhere."""
    out = ET.Element("math", {"display": "block"})
    if GOES_ON.match(line):
        out.append(tag("mspace", width="2em"))
    for k, part in enumerate(re.split(r"((?:\b[a-z]{2,}[ ,-]+){2,}[a-z]{2,}\b)", line.strip())):
        if k % 2 and not (set(re.findall(r"\w+", part)) & (GREEK.keys() | LARGE.keys() | UPRIGHT - {"mean", "sd"})):
            out.append(tag("mtext", f"\N{NO-BREAK SPACE}{part} "))
        else:
            out.extend(Line(part).row())
    return out


class Equations(BlockProcessor):
    """Paragraphs that are equations."""

    def test(self, parent: ET.Element, block: str) -> bool:
        lines = block.split("\n")
        found = sum(bool(HEAD.match(line) or GOES_ON.match(line)) for line in lines)
        return found > len(lines) / 2 and not any(line.endswith((".", ",", ";")) for line in lines)

    def run(self, parent: ET.Element, blocks: list[str]) -> None:
        box = ET.SubElement(parent, "div", {"class": "equations"})
        for line in blocks.pop(0).split("\n"):
            box.append(mathml(line.rstrip()) if HEAD.match(line) or GOES_ON.match(line) else tag("p", line))


class EquationsExtension(Extension):
    """For `markdown_extensions` of mkdocs.yml."""

    def extendMarkdown(self, md: Markdown) -> None:
        # after code, tables and lists, before paragraphs
        md.parser.blockprocessors.register(Equations(md.parser), "equations", 15)


def makeExtension(**options: object) -> EquationsExtension:
    return EquationsExtension(**options)
