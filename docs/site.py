"""The documentation site: stage pages, notebooks, gallery and API reference, then let MkDocs build them.

    python docs/site.py

Pages keep the places they have in the repository, so that their links hold there and here. Nothing is fetched: fonts
are the system's, the search index is built in, notebooks are shown as they were committed.
"""

import base64
import dataclasses
import importlib
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

from vbinfer._param import range_text

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "pages"
COPIED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "docs", "notebooks")
COPIED += tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "data").rglob("*.md")))
PICTURES = 3
"""Of each notebook, in the gallery."""


def stage() -> None:
    """Copy what is written, make what is not."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for name in COPIED:
        place = PAGES / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy(ROOT / name, place)
    gallery()
    reference()


def gallery() -> None:
    """A page of the notebooks' pictures, each with the heading it stands under and a link there."""
    lines = [
        "# Gallery",
        "",
        "![The first page of a report](docs/images/report.png)",
        "",
        "[The report](docs/report.md)",
        "",
    ]
    lines += ["Every other picture is an output of the notebook below it.", ""]
    (PAGES / "pictures").mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found, heading = 0, path.stem
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                heading = next(iter(re.findall(r"^#+ (.*)", "".join(cell["source"]), re.M)), heading)
            for output in cell.get("outputs", []):
                if found < PICTURES and "image/png" in (data := output.get("data", {})):
                    name, found = f"{path.stem}-{found}.png", found + 1
                    (PAGES / "pictures" / name).write_bytes(base64.b64decode(data["image/png"]))
                    lines += [f"![{heading}](pictures/{name})", "", f"[{heading}](notebooks/{path.name})", ""]
    (PAGES / "gallery.md").write_text("\n".join(lines))


def public(module: ModuleType) -> list[str]:
    """The names a module offers: those that its stub lists, or the classes and functions that it defines itself."""
    if listed := getattr(module, "__all__", None):
        return listed
    return [name for name in dir(module) if not name.startswith("_") and _is_ours(module, getattr(module, name))]


def _is_ours(module: ModuleType, found: object) -> bool:
    home = getattr(found, "__module__", "") or ""
    return home.startswith(module.__name__) and (inspect.isclass(found) or inspect.isfunction(found))


def parameters(found: object) -> list[str]:
    """A table of the parameters that a class declares: default, unit, range and what each is."""
    rows = []
    for field in dataclasses.fields(found) if inspect.isclass(found) and dataclasses.is_dataclass(found) else ():
        for meta in (one for one in field.metadata.values() if isinstance(one, dict) and "unit" in one):
            default = "" if field.default is dataclasses.MISSING else f"`{field.default}`"
            within = (
                "" if (meta["low"], meta["high"]) == (-math.inf, math.inf) else range_text(meta["low"], meta["high"])
            )
            rows.append(f"| `{field.name}` | {default} | {meta['unit']} | {within} | {meta['doc']} |")
    return ["| parameter | default | unit | range | |", "|---|---|---|---|---|", *rows, ""] if rows else []


def spaces() -> dict[str, tuple[ModuleType, list[str]]]:
    """The module and the public names of the root, `vb`, and of every namespace, `vb.models` and so on."""
    vb = importlib.import_module("vbinfer")
    modules = {f"vb.{name}": getattr(vb, name) for name in dir(vb) if inspect.ismodule(getattr(vb, name))}
    root = [name for name in dir(vb) if f"vb.{name}" not in modules]
    return {"vb": (vb, root)} | {title: (module, public(module)) for title, module in modules.items()}


def headline(found: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(found) or "").split("\n")[0]


def reference() -> None:
    """A page for the root and one for each namespace: the docstring of every public name."""
    folder = PAGES / "api"
    folder.mkdir()
    table = ["# Reference", "", "`import vbinfer as vb`; every name loads on first use.", "", "| | |", "|---|---|"]
    everywhere = spaces()
    for title, (module, names) in everywhere.items():
        table.append(f"| [{title}]({title}.md) | {headline(module)} |")
        lines, also = [f"# {title}", "", *([inspect.getdoc(module) or "", ""] if title != "vb" else [])], []
        for name in names:
            found = getattr(module, name)
            if inspect.ismodule(found):
                also.append(f"`{title}.{name}`: {headline(found)}")
            elif title != "vb" and name in everywhere["vb"][1] and getattr(everywhere["vb"][0], name) is found:
                also.append(f"[`vb.{name}`](vb.md#{found.__module__}.{found.__qualname__})")
            else:
                lines += [f"::: {found.__module__}.{found.__qualname__}", "", *parameters(found)]
        lines += ["", "Also here:", "", *(f"- {line}" for line in also)] if also else []
        (folder / f"{title}.md").write_text("\n".join(lines))
    (folder / "index.md").write_text("\n".join([*table, ""]))


def llms() -> str:
    """What a language model is told: the pages with what each is about, and every public name with its headline."""
    config = (ROOT / "mkdocs.yml").read_text()
    pages = [page for page in re.findall(r"(?:- |: )(\S+\.md)$", config, re.M) if (ROOT / page).is_file()]
    lines = [
        "# vbinfer",
        "",
        "> Simulation-based inference for virtual-brain models, in JAX: `import vbinfer as vb`.",
        "",
    ]
    lines += [
        "## Pages",
        "",
        *(f"- [{(ROOT / page).read_text().split(chr(10))[0].strip('# ')}]({page})" for page in pages),
    ]
    for title, (module, names) in spaces().items():
        lines += ["", f"## {title}", "", headline(module), ""]
        lines += [f"- `{title}.{name}`: {headline(getattr(module, name))}" for name in names]
    return "\n".join([*lines, ""])


def check_local(site: Path) -> None:
    """Raise SystemExit where a page loads a script, a style or a picture from elsewhere."""
    loads = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc="?(https?://[^"\s>]+)|<link[^>]*rel="?stylesheet[^>]*href="?(https?://[^"\s>]+)"""
    )
    found = {match for page in site.rglob("*.html") for match in loads.findall(page.read_text())}
    if found:
        raise SystemExit(f"pages load from elsewhere: {sorted(''.join(one) for one in found)}")


def build(config: Path) -> None:
    """Let MkDocs build; raise SystemExit where a link or an anchor of a page leads nowhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(config)]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    environment = os.environ | {"VBINFER_VERSION": f"vbinfer {version}"}
    said = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    # of the reference, brackets in a formula look like references, too: only the pages' own links count
    broken = [line for line in said.stderr.splitlines() if "Doc file" in line]
    if said.returncode or broken:
        raise SystemExit("\n".join(broken) or said.stderr)


def main() -> None:
    stage()
    build(ROOT / "mkdocs.yml")
    check_local(ROOT / "build" / "site")
    (ROOT / "build" / "site" / "llms.txt").write_text(llms())
    print(f"{ROOT / 'build' / 'site' / 'index.html'}\nwith search: python -m http.server -d build/site")


if __name__ == "__main__":
    main()
