"""The documentation site: stage pages, notebooks, gallery and API reference, then let MkDocs build them.

    python docs/site.py

Pages keep the places they have in the repository, so that their links hold there and here. Nothing is fetched: fonts
are the system's, the search index is built in, notebooks are shown as they were committed.
"""

import base64
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "pages"
COPIED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs", "notebooks")
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
    lines = ["# Gallery", "", "Every picture is an output of the notebook below it.", ""]
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


def reference() -> None:
    """A page for the root and one for each namespace: the docstring of every public name."""
    vb = importlib.import_module("vbinfer")
    folder = PAGES / "api"
    folder.mkdir()
    spaces = {name: getattr(vb, name) for name in dir(vb) if inspect.ismodule(getattr(vb, name))}
    table = ["# Reference", "", "`import vbinfer as vb`; every name loads on first use.", "", "| | |", "|---|---|"]
    everywhere = {"vb": (vb, [name for name in dir(vb) if name not in spaces])}
    everywhere |= {f"vb.{name}": (module, public(module)) for name, module in spaces.items()}
    for title, (module, names) in everywhere.items():
        page = f"{title}.md"
        first = (inspect.getdoc(module) or "").split("\n")[0]
        table.append(f"| [{title}]({page}) | {first} |")
        lines, also = [f"# {title}", "", *([inspect.getdoc(module) or "", ""] if title != "vb" else [])], []
        for name in names:
            found = getattr(module, name)
            if inspect.ismodule(found):
                also.append(f"`{title}.{name}`: {(inspect.getdoc(found) or '').splitlines()[0]}")
            elif title != "vb" and name in everywhere["vb"][1]:
                also.append(f"[`vb.{name}`](vb.md#{found.__module__}.{found.__qualname__})")
            else:
                lines += [f"::: {found.__module__}.{found.__qualname__}", ""]
        lines += ["", "Also here:", "", *(f"- {line}" for line in also)] if also else []
        (folder / page).write_text("\n".join(lines))
    (folder / "index.md").write_text("\n".join([*table, ""]))


def check_local(site: Path) -> None:
    """Raise SystemExit where a page loads a script, a style or a picture from elsewhere."""
    loads = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc="?(https?://[^"\s>]+)|<link[^>]*rel="?stylesheet[^>]*href="?(https?://[^"\s>]+)"""
    )
    found = {match for page in site.rglob("*.html") for match in loads.findall(page.read_text())}
    if found:
        raise SystemExit(f"pages load from elsewhere: {sorted(''.join(one) for one in found)}")


def main() -> None:
    stage()
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", str(ROOT / "mkdocs.yml")]
    said = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    # of the reference, brackets in a formula look like references, too: only the pages' own links count
    broken = [line for line in said.stderr.splitlines() if "Doc file" in line]
    if said.returncode or broken:
        raise SystemExit("\n".join(broken) or said.stderr)
    check_local(ROOT / "build" / "site")
    print(f"{ROOT / 'build' / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
