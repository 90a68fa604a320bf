"""The sbi package, kept quiet.

One torch thread, seeds of our own, no chatter, no files, and all put back after.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from vbinfer._names import PRNGKey


class NullTracker:
    """Discards metrics that sbi would write to a folder."""

    log_dir = None

    def log_metric(self, *_: Any, **__: Any) -> None:
        """Discard."""

    log_metrics = log_params = add_figure = flush = log_metric


@contextlib.contextmanager
def quiet_torch(key: PRNGKey | None, progress: bool = False) -> Iterator[None]:
    """Run with one torch thread and generators seeded by `key`.

    Threads, generators and stdout are restored. Two threads are no faster for networks of this size and many times
    slower where cores are shared.

    Raises:
        ImportError: torch or sbi is missing.
    """
    torch = require()
    # torch takes an integer; one key gives one seed for all generators within
    seed = 0 if key is None else int(jax.random.randint(key, (), 0, 2**31 - 1))
    threads, numpy_state, logged = torch.get_num_threads(), np.random.get_state(), logging.root.manager.disable
    said = io.StringIO()  # sbi prints that it has converged
    torch.set_num_threads(1)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            contextlib.nullcontext() if progress else contextlib.redirect_stdout(said),
        ):
            for module in ("sbi", "nflows", "zuko", "torch", "pyro"):
                warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
            warnings.filterwarnings("ignore", message="Maximum number of epochs")  # FitInfo says it
            torch.manual_seed(seed)
            np.random.seed(seed)  # sbi's slice sampler draws from NumPy's global generator
            logging.disable(max(logged, logging.WARNING))
            yield
    finally:
        torch.set_num_threads(threads)
        np.random.set_state(numpy_state)
        logging.disable(logged)


def require() -> Any:
    """The torch module, or what to install."""
    try:
        import sbi  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(
            f"SbiEstimator needs the packages sbi and torch ({error}); write pip install 'sbi>=0.26' 'torch>=2.4', "
            "or use vb.NPE, vb.NLE or vb.NRE, which need neither"
        ) from error
    return torch
