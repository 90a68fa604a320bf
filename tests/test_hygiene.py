"""What importing does (nothing), who imports whom (downwards), and which names the package shows."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vbinfer"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}

HEAVY_AT_IMPORT = (
    "torch",
    "sbi",
    "dask",
    "distributed",
    "matplotlib",
    "arviz",
    "pandas",
    "sklearn",
    "blackjax",
    "xarray",
)

BASE = {"_names", "_param", "_check", "_ode", "_arviz", "_random", "_show", "io"}
MEMBERS = {"models", "network", "integrators", "noise", "stimuli", "monitors", "features", "priors", "execute"}
SCALES = {"spiking", "cable", "fields"}
INFERENCE = {"priors", "execute", "draws", "neural", "sampling", "approximate", "posterior"}
ALLOWED = {
    **{name: BASE for name in BASE},
    **{name: BASE | {"models.base"} for name in MEMBERS},
    **{name: BASE | {"models.base", "stimuli", "integrators"} for name in SCALES},
    "measurement": BASE | {"features"},
    "simulation": BASE | MEMBERS | {"measurement"} | {f"{scale}.base" for scale in SCALES},
    "draws": BASE | {"priors", "execute", "posterior"},
    "posterior": BASE | {"priors", "execute"},
    "neural": BASE | INFERENCE,
    "sampling": BASE | INFERENCE,
    "approximate": BASE | INFERENCE,
    "likelihoods": BASE | {"priors", "simulation"},
    "densities": {"neural"},
    "stores": {"draws"},
    "_moved": set(),
    "diagnostics": BASE | INFERENCE | {"features"},
    "bridges": BASE | MEMBERS | SCALES | {"simulation"},
    "explore": BASE | MEMBERS | SCALES | {"simulation", "draws", "priors", "execute", "likelihoods"},
    "tasks": BASE | MEMBERS | SCALES | INFERENCE | {"simulation", "likelihoods", "diagnostics"},
}
BELOW_TOP = BASE | MEMBERS | SCALES | set(ALLOWED)
ALLOWED["reporting"] = ALLOWED["datasets"] = BELOW_TOP | {"reporting", "datasets"}
ALLOWED["study"] = BELOW_TOP | {"reporting", "datasets", "study"}
ALLOWED["cli"] = BELOW_TOP | {"reporting", "datasets", "study", "cli"}

HOMES = {  # library: the modules that may import it, at any depth of nesting
    "numpyro": ("priors.", "sampling.", "approximate.", "tasks."),
    "blackjax": ("sampling.", "approximate."),
    "sbi": ("neural.sbi",),
    "torch": ("neural.sbi", "priors._torch"),
    "arviz": ("_arviz",),
    "xarray": ("posterior", "draws.table", "explore.", "_arviz"),
    "pandas": ("draws.export",),
    "pyarrow": ("draws.export",),
    "zarr": ("draws.export",),
    "dask": ("execute.dask",),
    "distributed": ("execute.dask",),
    "diffrax": ("integrators", "approximate.optimise"),
    "optimistix": ("integrators", "approximate.optimise"),
    "matplotlib": ("reporting.figures", "cable.plot", "explore.plots"),
    "tvb": ("bridges.",),
    "jaxley": ("bridges.",),
}


def module_name(path: Path) -> str:
    """`draws.table` for vbinfer/draws/table.py, `draws.` for its __init__, so that a folder is a prefix."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1]) + "." if parts[-1] == "__init__" else ".".join(parts)


def imported(path: Path, nodes) -> list[tuple[str, int]]:
    """Absolute names of everything imported under `nodes`, with the line; relative imports are made absolute."""
    found = []
    package = ("vbinfer", *path.relative_to(PACKAGE).parts[:-1])
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (start, node.module) if part)
            bare = source == "vbinfer" or (node.level and node.module is None)
            found += [(f"{source}.{alias.name}" if bare else source, node.lineno) for alias in node.names]
    return found


def outside_type_checking(tree: ast.AST):
    """Every node but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from outside_type_checking(child)


def is_within(target: str, allowed: set[str] | tuple[str, ...]) -> bool:
    return any(target == name or target.startswith(name.rstrip(".") + ".") for name in allowed)


def test_imports_point_down():
    wrong = []
    for path, tree in TREES.items():
        owner = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if owner == "__init__":
            continue
        if owner not in ALLOWED:
            wrong.append(f"{path.relative_to(ROOT)}: {owner} has no row in the table of this test")
            continue
        for name, line in imported(path, outside_type_checking(tree)):
            target = name.removeprefix("vbinfer.")
            if name != target and target.split(".")[0] != owner and not is_within(target, ALLOWED[owner]):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_stay_at_home():
    wrong = []
    for path, tree in TREES.items():
        module = module_name(path)
        for name, line in imported(path, outside_type_checking(tree)):
            homes = HOMES.get(name.split(".")[0], (module,))
            if not module.startswith(homes):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}; its homes are {homes}")
    assert not wrong, "\n".join(wrong)


def test_no_print_outside_the_command_line_and_no_bare_except():
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} bare except")
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            talks = "cli" in path.parts or (called == "print" and path.name == "_show.py")
            if called in ("print", "exec", "eval") and not talks:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {called}(...)")
    assert not wrong, "\n".join(wrong)


PROBE = """
import json, os, sys, random
import numpy, jax
def state():
    return [dict(os.environ), {k: str(v) for k, v in jax.config.values.items()},
            numpy.random.get_state()[1].tolist(), hash(random.getstate())]
before = state()
import vbinfer
for name in vbinfer.__all__:  # names load on first use: load them all
    getattr(vbinfer, name)
after = state()
backends = list(getattr(jax._src.xla_bridge, "_backends", {}))
names = sorted(name for name in vars(vbinfer) if not name.startswith("_"))
print(json.dumps({"same": [a == b for a, b in zip(before, after)], "modules": sorted(sys.modules), "names": names,
                  "backends": backends}))
"""


@pytest.fixture(scope="module")
def imported_in_a_fresh_process(tmp_path_factory) -> dict:
    """What one `import vbinfer` does to a new interpreter, without the suite's import hook."""
    where = tmp_path_factory.mktemp("import")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:vbinfer", "-c", PROBE],
        cwd=where,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1, f"the import printed: {done.stdout[:500]}"
    assert list(where.iterdir()) == []
    return json.loads(done.stdout)


@pytest.mark.smoke
def test_import_leaves_the_process_as_it_was(imported_in_a_fresh_process):
    changed = zip(
        ("environment", "jax.config", "numpy.random", "random"), imported_in_a_fresh_process["same"], strict=True
    )
    assert [name for name, same in changed if not same] == []


@pytest.mark.smoke
def test_import_makes_no_array(imported_in_a_fresh_process):
    assert imported_in_a_fresh_process["backends"] == []  # the first array or key starts one


def test_import_loads_no_heavy_library(imported_in_a_fresh_process):
    assert sorted(set(HEAVY_AT_IMPORT) & set(imported_in_a_fresh_process["modules"])) == []


def test_public_names_are_those_of_the_snapshot(imported_in_a_fresh_process):
    """A new or lost name is a decision: change tests/golden/public_names.txt with it."""
    subpackages = {path.stem for path in PACKAGE.iterdir()}
    exported = {
        alias.asname or alias.name
        for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert exported <= set(imported_in_a_fresh_process["names"])
    loaded_by_accident = set(imported_in_a_fresh_process["names"]) - exported - subpackages
    assert loaded_by_accident == set()
    snapshot = (ROOT / "tests" / "golden" / "public_names.txt").read_text().split()
    assert sorted(exported) == snapshot


def test_names_that_moved_are_reachable_and_not_listed():
    """Every root name of 0.1.0, and nothing of what moved in `dir(vb)`."""
    import vbinfer as vb
    from vbinfer._moved import MOVED

    before = (ROOT / "tests" / "golden" / "public_names_0_1_0.txt").read_text().split()
    assert set(before) <= set(dir(vb)) | set(MOVED)
    assert set(MOVED).isdisjoint(dir(vb))
    for name in before:
        assert getattr(vb, name) is not None
    assert vb.MAF is vb.densities.MAF
    assert vb.lc2st is vb.diagnostics.lc2st
    assert vb.Leaf is type(next(iter(vb.paths(vb.models.Linear()).values())))


def test_a_name_that_never_was_is_an_attribute_error():
    import vbinfer as vb

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vb.no_such_name


def test_no_folder_takes_the_name_of_an_exported_function():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    exported = (ROOT / "tests" / "golden" / "public_names.txt").read_text().split()
    import vbinfer

    assert [name for name in exported if name in folders and not hasattr(getattr(vbinfer, name), "__path__")] == []
