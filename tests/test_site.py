"""The site: equations of docstrings as MathML, tables of parameters, llms.txt, and what makes a build fail."""

import importlib.util
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import vbinfer as vb

ROOT = Path(__file__).parent.parent


def script(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site = script("site")


def plain(line: str) -> str:
    """An equation as it was set, in a notation with every bracket written."""
    equations = pytest.importorskip("markdown") and script("equations")

    def text(e: ET.Element) -> str:
        inside = [text(child) for child in e]
        if e.tag == "mfrac":
            return f"({inside[0]})/({inside[1]})"
        if e.tag in ("msub", "msup", "msubsup"):
            marks = {"msub": "_", "msup": "^", "msubsup": "_^"}[e.tag]
            return inside[0] + "".join(f"{mark}{{{one}}}" for mark, one in zip(marks, inside[1:], strict=True))
        return f"sqrt({''.join(inside)})" if e.tag == "msqrt" else (e.text or "") + "".join(inside)

    return text(equations.mathml(line))


@pytest.mark.parametrize(
    ("line", "set_as"),
    [
        ("tau dV/dt = V^2 - (pi tau r)^2 + eta", "τ(dV)/(dt)=V^{2}−(πτr)^{2}+η"),
        ("S(v) = 2 nu_max / (1 + exp(r (v0 - v)))", "S(v)=2(ν_{max})/(1+exp(r(v_{0}−v)))"),
        ("x' = e^(-t / tau_1) sqrt(2 a)", "x′=e^{−(t)/(τ_{1})}sqrt(2a)"),
        ("y(t) = int_0^inf G(s) ds", "y(t)=∫_{0}^{∞}G(s)ds"),
        ("r >= 0 after every stage", "r≥0\N{NO-BREAK SPACE}after every stage "),
    ],
)
def test_equations_are_set_as_written(line, set_as):
    assert plain(line) == set_as


def test_equations_are_told_from_sentences_and_code():
    markdown = pytest.importorskip("markdown")
    equations = script("equations")
    text = {
        "dx/dt = y\ndy/dt = -x\n       + u": 3,
        "With x = 3 the answer is y = 4.": 0,
        ">>> x = f(3)\n3": 0,
        "A sentence that goes on\nand sets a = 3": 0,
    }
    for block, lines in text.items():
        html = markdown.markdown(block, extensions=[equations.makeExtension()])
        assert html.count("<math") == lines, block


def test_the_parameters_of_a_class_are_listed_with_unit_and_range():
    rows = site.parameters(vb.models.MontbrioPazoRoxin)
    assert "| `tau` | `1.0` | ms | [1e-06, inf) | membrane time constant |" in rows
    assert site.parameters(vb.simulate) == []
    assert site.parameters(vb.ForwardModel) == []


def test_llms_has_every_public_name_with_its_headline_and_every_page():
    text = site.llms()
    names = (ROOT / "tests" / "golden" / "public_names.txt").read_text().split()
    for name in names:
        assert re.search(rf"^(?:## vb\.{name}$|- `vb\.{name}`: \S)", text, re.M), name
    for model in ("JansenRit", "WilsonCowan"):
        assert f"- `vb.models.{model}`: " in text
    pages = re.findall(r"^- \[.+\]\((\S+)\)$", text, re.M)
    assert {"README.md", "docs/install.md", "docs/for-users-of/sbi.md"} <= set(pages)


def test_the_llms_file_of_the_repository_names_nothing_that_is_gone():
    """`make docs` writes it anew, into build/site; what is listed and what it says is tested above."""
    text = (ROOT / "llms.txt").read_text()
    named = re.findall(r"^- `vb\.([\w.]+)`: ", text, re.M)
    assert len(named) > 200
    for name in named:
        found = vb
        for part in name.split("."):
            found = getattr(found, part)
    for page in re.findall(r"^- \[.+\]\((\S+)\)$", text, re.M):
        assert (ROOT / page).is_file(), page


def test_pages_that_load_from_elsewhere_are_refused(tmp_path):
    (tmp_path / "good.html").write_text('<a href="https://example.org">elsewhere</a><script src="own.js"></script>')
    site.check_local(tmp_path)
    (tmp_path / "bad.html").write_text('<script src="https://example.org/a.js"></script>')
    with pytest.raises(SystemExit, match=r"example\.org/a\.js"):
        site.check_local(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("link", "message"),
    [("other.md", None), ("other.md#a-heading", None), ("gone.md", "gone.md"), ("other.md#no-heading", "no-heading")],
)
def test_a_link_or_an_anchor_that_leads_nowhere_fails_the_build(tmp_path, link, message):
    pytest.importorskip("mkdocs")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text(f"# Start\n\n[there]({link})\n")
    (tmp_path / "pages" / "other.md").write_text("# Other\n\n## A heading\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        "INHERIT: " + str(ROOT / "mkdocs.yml") + "\ndocs_dir: pages\nsite_dir: site\nplugins: []\nextra_css: []\n"
        "nav: [index.md, other.md]\n"
    )
    if message is None:
        site.build(config)
        assert (tmp_path / "site" / "index.html").exists()
    else:
        with pytest.raises(SystemExit, match=re.escape(message)):
            site.build(config)


# Written to the title, where --dump-dom shows it: pages side by side in frames as wide as a phone.
PROBE = """<!doctype html><title>waiting</title><body><script>
const pages = %s, found = {};
pages.forEach(page => {
  const f = document.createElement("iframe");
  f.style = "width:390px;height:2000px"; f.src = page;
  f.onload = function () {
    const d = this.contentDocument, images = [...d.images];
    const tall = [...d.querySelectorAll("math")].filter(m => m.getBoundingClientRect().height < 8);
    found[page] = {width: d.documentElement.scrollWidth, text: d.body.innerText.length, flat: tall.length,
      broken: images.filter(i => !i.complete || i.naturalWidth === 0).length, images: images.length,
      math: d.querySelectorAll("math").length};
    if (Object.keys(found).length === pages.length) document.title = JSON.stringify(found);
  };
  document.body.append(f);
});
</script>"""
PAGES = ["index.html", "gallery.html", "api/vb.models.html", "docs/for-users-of/vbi.html", "docs/install.html"]
PAGES += ["notebooks/04_choose_a_method.html", "docs/architecture.html", "api/vb.html"]


@pytest.mark.browser
def test_the_site_holds_on_a_phone():
    """Built by `make docs`, opened as files: nothing is wider than the screen, no picture or equation is missing."""
    from test_report_browser import CHROMIUM, chromium

    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    site.main()
    folder = ROOT / "build"
    (folder / "site" / "probe.html").write_text(PROBE % json.dumps(PAGES))
    seen = chromium("--virtual-time-budget=20000", "--dump-dom", f"file://{folder}/site/probe.html", folder=folder)
    found = json.loads(re.search(r"<title>(.*?)</title>", seen.stdout, re.S)[1].replace("&amp;", "&"))
    assert sorted(found) == sorted(PAGES)
    for page, seen in found.items():
        assert seen["width"] <= 390, page
        assert seen["text"] > 400, page
        assert seen["broken"] == seen["flat"] == 0, page
    assert found["api/vb.models.html"]["math"] > 60
    assert found["gallery.html"]["images"] > 12
