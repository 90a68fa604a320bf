"""Settings for the whole suite: precision by environment, shape checks on, one thread per library, no stray files."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch and BLAS when they load, also in subprocesses
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import jaxtyping
import pytest

X64 = os.environ.get("VBINFER_X64") == "1"
if X64:
    jax.config.update("jax_enable_x64", True)

jaxtyping.install_import_hook("vbinfer", "typechecker.check")  # before anything imports vbinfer

# Files whose code is ours from end to end. flowjax and blackjax rely on rank promotion.
STRICT_RANK = (
    "test_coupling",
    "test_features",
    "test_forward",
    "test_gradients",
    "test_integrators",
    "test_models",
    "test_monitors",
    "test_network",
    "test_noise",
    "test_delays",
    "test_simul",
    "test_sparse",
    "test_stimuli",
)


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
