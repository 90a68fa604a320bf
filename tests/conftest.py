"""Settings for the whole suite: precision, shape checks, one thread, kept programs, durations."""

import faulthandler
import json
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch and BLAS when they load, also in subprocesses
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import jaxtyping
import pytest

ROOT = Path(__file__).parent.parent
X64 = os.environ.get("VBINFER_X64") == "1"
if X64:
    jax.config.update("jax_enable_x64", True)

# Shapes are checked where shapes are the subject; VBINFER_TYPES=all checks them everywhere (make test-types).
CHECKED = ("simulation", "priors", "features", "models", "network", "monitors", "noise", "stimuli", "integrators")
everywhere = os.environ.get("VBINFER_TYPES") == "all"
jaxtyping.install_import_hook(
    "vbinfer" if everywhere else [f"vbinfer.{name}" for name in CHECKED], "typechecker.check"
)  # before anything imports vbinfer

# Files whose code is ours from end to end. flowjax and blackjax rely on rank promotion.
STRICT_RANK = (
    "test_connectome",
    "test_coupling",
    "test_delays",
    "test_features",
    "test_forward",
    "test_gradients",
    "test_integrators",
    "test_models",
    "test_monitors",
    "test_noise",
    "test_simul",
    "test_sparse",
    "test_stimuli",
)


def keep_programs() -> None:
    """Keep compiled programs in `.programs/`, for the next run of the suite and for the processes that tests start.

    Most of a run in an empty clone is compilation. What is kept runs as it was compiled, bit for bit;
    `VBINFER_TEST_CACHE=` (empty) turns it off, or names another folder.
    """
    folder = os.environ.get("VBINFER_TEST_CACHE", str(ROOT / ".programs"))
    if folder:
        from vbinfer.execute.compile_cache import machine

        place = Path(folder) / machine()
        place.mkdir(parents=True, exist_ok=True)
        options = {
            "jax_compilation_cache_dir": str(place),
            "jax_persistent_cache_min_compile_time_secs": 0.02,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        for name, value in options.items():
            jax.config.update(name, value)
            os.environ.setdefault(name.upper(), str(value))


keep_programs()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Examples in docstrings are documents: `make documents` runs them."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("documents")


@pytest.fixture(scope="session")
def x64() -> bool:
    """Whether this run computes in float64 (`make test-x64`)."""
    return X64


@pytest.fixture(autouse=True)
def _no_rank_promotion(request):
    if request.path.name.startswith(STRICT_RANK):
        with jax.numpy_rank_promotion("raise"):
            yield
    else:
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """The programs of one file are of no use to the next, and a thousand of them fill gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _one_torch_thread():
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory):
    """Run in an empty folder: a test that writes to the current folder leaves nothing in the repository."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


# ---- a study of five nodes, shared by the files that look at the command line and at studies


@pytest.fixture(scope="session")
def study_files(tmp_path_factory) -> Path:
    """Connectome, parameters, recording and `study.toml` of five nodes; to be read, or copied."""
    import small_study

    place = tmp_path_factory.mktemp("study")
    small_study.make(place)
    return place


@pytest.fixture(scope="session")
def shell_run(study_files, tmp_path_factory):
    """The same folder after `vbinfer run study.toml` in a process of its own, and that process.

    Its results lie in `results/`; to be read, or copied.
    """
    import small_study

    place = tmp_path_factory.mktemp("shell") / "study"
    shutil.copytree(study_files, place)
    return place, small_study.command("run", "study.toml", "--cores", "1", cwd=place)


# ---- durations: CPU seconds of every test, its fixtures and its finished subprocesses, one JSON per run


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


HANGS = 900.0  # seconds; the longest test takes a tenth of it on a busy machine, of those marked slow a third


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.stash[_STARTED] = _cpu_seconds()
    # a test that stands still ends its process: xdist names it and goes on without (run alone, it says where it stood)
    limit = HANGS * (4.0 if item.get_closest_marker("slow") else 1.0)
    faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "teardown":
        report.user_properties.append(("cpu", round(_cpu_seconds() - item.stash[_STARTED], 2)))
        report.user_properties.append(("marks", sorted({mark.name for mark in item.iter_markers()})))
    return report


_STARTED = pytest.StashKey[float]()


class Durations:
    """Collects what the tests took, in the process that prints, and writes `.durations/<time>.json`."""

    def __init__(self) -> None:
        self.began, self.found = time.time(), {}

    def pytest_runtest_logreport(self, report):
        told = dict(report.user_properties)
        if report.when == "teardown" and "cpu" in told:
            self.found[report.nodeid] = {"cpu": told["cpu"], "marks": told["marks"]}

    def pytest_sessionfinish(self):
        if len(self.found) < 20:  # a test or two that somebody looks at is no record
            return
        folder = ROOT / ".durations"
        folder.mkdir(exist_ok=True)
        total = sum(one["cpu"] for one in self.found.values())
        record = {
            "wall": round(time.time() - self.began, 1),
            "cpu": round(total, 1),
            "items": len(self.found),
            "tests": dict(sorted(self.found.items(), key=lambda pair: -pair[1]["cpu"])),
        }
        name = time.strftime("%Y%m%d-%H%M%S", time.localtime(self.began))
        (folder / f"{name}.json").write_text(json.dumps(record, indent=1))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # with xdist, the process that hands out tests
        config.pluginmanager.register(Durations())
