"""The files that install the package agree with each other and with the code."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch-cpu": "torch"}


def floors(requirements) -> dict[str, str]:
    """`{"jax": ">=0.7.2"}` of lines such as `jax>=0.7.2`."""
    pairs = [re.fullmatch(r"([A-Za-z0-9_-]+)(.*)", line.strip()) for line in requirements]
    return {CONDA_NAMES.get(m[1], m[1]).lower(): m[2] for m in pairs if m}


def conda_requirements() -> list[str]:
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    entries = [line.strip().removeprefix("- ") for line in lines if line.strip()]
    return [entry for entry in entries if entry not in ("pip", "pip:", "-e .")]


def test_environment_has_the_floors_of_pyproject():
    environment = floors(conda_requirements())
    assert environment.pop("python") == PROJECT["requires-python"]
    assert environment == floors(PROJECT["dependencies"])


def test_every_requirement_is_a_floor_without_a_ceiling():
    lines = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_-]+(\[\w+\])?>=[0-9.]+", line)] == []


def test_torch_stays_wide():
    assert floors(PROJECT["dependencies"])["torch"] == ">=2.4"


def test_everything_that_is_imported_is_required():
    """Third-party imports of the package, at any depth, belong to a distribution that pyproject.toml names.

    Those of an extra are imported where they are used, with an error that names the extra (test_hygiene has the homes).
    """
    top = set()
    for path in (ROOT / "vbinfer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                top |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                top.add(node.module.split(".")[0])
    owners = packages_distributions()
    extras = chain(*(lines for name, lines in PROJECT["optional-dependencies"].items() if name not in ("dev", "test")))
    required = set(floors([*PROJECT["dependencies"], *extras])) | {"jaxlib"}
    third_party = top - set(sys.stdlib_module_names) - {"vbinfer"}
    missing = {name for name in third_party if not {d.lower() for d in owners.get(name, [name])} & required}
    assert missing == set()


def test_the_command_exists():
    module, function = PROJECT["scripts"]["vbinfer"].split(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_licence_is_the_whole_apache_text():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    for passage in ("Version 2.0, January 2004", "3. Grant of Patent License.", "END OF TERMS AND CONDITIONS"):
        assert passage in text


@pytest.mark.parametrize(
    "target",
    [
        "demo",
        "test",
        "fmt",
        "lint",
        "type",
        "test-slow",
        "test-x64",
        "notebooks",
        "bench",
        "audit",
        "test-faults",
        "test-python",
        "test-browser",
        "docs",
        "lock",
    ],
)
def test_every_advertised_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_ci_runs_the_makefile_and_stops_at_a_failure():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert {"setup", "lint", "type", "test", "notebooks"} <= set(re.findall(r"[\w-]+", script))
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
