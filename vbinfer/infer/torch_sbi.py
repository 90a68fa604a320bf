"""Estimators of the sbi package (torch) behind the same contract: trained in z, where the prior is standard normal."""

import contextlib
import dataclasses
import io
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _io
from vbinfer._param import did_you_mean
from vbinfer._typing import PRNGKey, Theta
from vbinfer.execute.lanes import as_count, as_key
from vbinfer.infer.draws import Draws
from vbinfer.infer.fit_info import FitInfo
from vbinfer.infer.npe import training_pairs
from vbinfer.infer.posterior import Posterior
from vbinfer.infer.standardise import Standardise, check_observation
from vbinfer.priors.prior import Prior

_METHODS = ("NPE",)
_SAVED_MODELS = ("maf", "nsf", "mdn")
_REBUILD_ROWS = 100


@dataclasses.dataclass(frozen=True)
class SbiEstimator:
    """Neural posterior estimation by the sbi package, where its networks are wanted; `vb.NPE` is the faster default.

    The network is trained on z, in which the prior is N(0, I): nothing leaks out of the prior's support and log q
    needs no correction. One torch thread while fitting; two slow down many-fold when cores are shared.

    Args:
        method: `"NPE"` (sbi's NPE_C in its first round).
        network: options of `sbi.neural_nets.posterior_nn`: `model` (`"maf"`, `"nsf"`, `"mdn"`, `"zuko_maf"`, ...),
            `hidden_features`, `num_transforms`, `num_components`, ...
        training: options of sbi's `train`: `training_batch_size`, `learning_rate`, `stop_after_epochs`,
            `max_num_epochs`, `validation_fraction`, `clip_max_norm`.

    Raises:
        ValueError: a method that is not available.

    Greenberg, Nonnenmacher & Macke 2019, ICML, doi:10.48550/arXiv.1905.07488; Tejero-Cantero et al. 2020, JOSS,
    doi:10.21105/joss.02505.

    Example:
        amortized, info = vb.SbiEstimator("NPE", network={"model": "nsf"}).fit(draws, prior, key=jax.random.key(1))
    """

    method: str = "NPE"
    _: dataclasses.KW_ONLY
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(
                f"SbiEstimator was given the method {self.method!r}; this version has {', '.join(_METHODS)}. "
                f"{did_you_mean(self.method, _METHODS)}"
            )

    def fit(
        self, draws: Draws, prior: Prior, *, key: PRNGKey, progress: bool = False
    ) -> tuple["SbiPosterior", FitInfo]:
        """Train on the valid draws.

        Args:
            draws: from `sample_prior_predictive`; rows with `valid=False` are left out and counted.
            prior: the prior that they came from.
            key: decides initial weights, held-out rows and minibatches, through torch's seed within the fit.
            progress: show sbi's progress line.

        Raises:
            ValueError: fewer than 20 valid draws, draws of other parameters than the prior's, or a draw outside it.
        """
        started, key = time.perf_counter(), as_key(key)
        z, x = training_pairs(draws, prior)
        training = {"training_batch_size": 200, "learning_rate": 1e-3, "max_num_epochs": 500, **self.training}
        standardise = Standardise.fit(x)
        h = np.asarray(standardise(jnp.asarray(x)), np.float32)
        spec = {"model": "maf", **self.network}
        with quiet_torch(int(jax.random.randint(key, (), 0, 2**31 - 1))):
            net, trainer = _train(spec, training, np.asarray(z, np.float32), h, progress)
        train, val = (np.asarray(trainer.summary[name], float) for name in ("training_loss", "validation_loss"))
        held = np.asarray(trainer.val_indices)
        notes = {"converged": len(val) <= int(training["max_num_epochs"])}
        fitted = SbiPosterior(prior, spec, net, standardise, draws.names, notes)
        theta = prior.constrain(prior.unravel_z(z[held]))[0]
        info = FitInfo(
            method=self.method,
            backend="sbi",
            train=train,
            val=val,
            best_epoch=int(np.argmin(val)) + 1,
            info_gain=float(np.mean(fitted.log_prob(theta, x[held]) - prior.log_prob(theta))),
            converged=notes["converged"],
            num_train=len(z) - len(held),
            num_val=len(held),
            seconds=time.perf_counter() - started,
            versions=_io.versions("sbi", "torch"),
            num_failed=len(draws) - len(z),
        )
        fitted.info.update(sentence=info.sentence, info_gain=info.info_gain)
        return fitted, info


class SbiPosterior:
    """q(theta | x) of the sbi package for any x of the simulator. Made by `SbiEstimator("NPE").fit`.

    Attributes:
        prior: the prior of the draws.
        names: names of the F features of x.
        info: JSON-able notes of the fit.
    """

    def __init__(
        self,
        prior: Prior,
        spec: Mapping[str, Any],
        net: Any,
        standardise: Standardise,
        names: tuple[str, ...],
        info: Mapping[str, Any],
    ) -> None:
        self.prior, self.names, self.info = prior, tuple(names), dict(info)
        self._spec, self._net, self._standardise = dict(spec), net, standardise

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Draws from the posterior of one observation `[F]`: leaves `[1, n, ...]`, with the normalised log q."""
        x = check_observation(x_o, self.names, ndim=1)
        outside = self.outside(x)
        if outside:
            warnings.warn(
                f"x_o lies outside the training draws in {', '.join(outside)}: this posterior is an extrapolation. "
                "Compare these features with the prior predictive, and widen the prior or change the model",
                stacklevel=2,
            )
        theta = {name: value[0] for name, value in self.sample_batch(x[None], n=n, key=key).items()}
        leaves = {name: np.asarray(value)[None] for name, value in theta.items()}
        log_q = np.asarray(self.log_prob(theta, x))[None]
        info = {"method": "NPE (sbi)", "outside_training": list(outside), **self.info}
        return Posterior(leaves, log_prob=log_q, x_o=x, prior=self.prior, info=info)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draws for many observations: leaves `[B, n, ...]` for x `[B, F]`."""
        import torch

        h, n, key = self._h(check_observation(x, self.names, ndim=2)), as_count(n, "n"), as_key(key)
        with quiet_torch(int(jax.random.randint(key, (), 0, 2**31 - 1))), torch.no_grad():
            z = self._net.sample(torch.Size((n,)), condition=h).numpy()
        flat = jnp.asarray(z).swapaxes(0, 1)
        return self.prior.constrain(self.prior.unravel_z(flat))[0]

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x), exact; -inf outside the prior's support.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        import torch

        rows = check_observation(x, self.names, ndim=max(1, np.ndim(x)))
        inside = jnp.isfinite(self.prior.log_prob(theta))
        z = self.prior.unconstrain(theta)
        flat = np.asarray(self.prior.ravel_z(z), np.float32)
        lead = np.broadcast_shapes(flat.shape[:-1], rows.shape[:-1])
        pairs = [np.array(np.broadcast_to(a, (*lead, a.shape[-1]))).reshape(-1, a.shape[-1]) for a in (flat, rows)]
        pairs[0] = np.nan_to_num(pairs[0])
        with torch.no_grad():
            value = self._net.log_prob(torch.from_numpy(pairs[0])[None], condition=self._h(pairs[1]))[0].numpy()
        log_q = jnp.asarray(value.reshape(lead)) - self.prior.constrain(z)[1]
        return jnp.where(inside & ~jnp.isnan(log_q), log_q, -jnp.inf)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Names of the features in which an observation lies beyond the range of the training draws."""
        far = self._standardise.outside(check_observation(x_o, self.names, ndim=1))
        return tuple(name for name, flag in zip(self.names, far, strict=True) if flag)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON; `vb.load(path)` rebuilds the network through sbi's builder.

        Raises:
            TypeError: a network that cannot be rebuilt from its options (maf, nsf, mdn and zuko_* can).
        """
        model = self._spec["model"]
        if not isinstance(model, str) or not (model in _SAVED_MODELS or model.startswith("zuko_")):
            raise TypeError(
                f"a network of kind {model!r} cannot be saved without pickle; train with network={{'model': ...}} "
                f"one of {', '.join(_SAVED_MODELS)} or zuko_*"
            )
        arrays = {f"net/{name}": value.cpu().numpy() for name, value in self._net.state_dict().items()}
        arrays |= self._standardise.to_arrays()
        header = {
            "prior": self.prior.to_spec(),
            "network": self._spec,
            "names": list(self.names),
            "info": self.info,
            "versions": _io.versions("sbi", "torch"),
        }
        _io.write(path, "sbi", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "SbiPosterior":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        import torch

        prior, width = Prior.from_spec(header["prior"]), len(header["names"])
        rows = np.random.default_rng(0).normal(size=(_REBUILD_ROWS, prior.z_dim + width)).astype(np.float32)
        with quiet_torch(0):
            net = _builder(header["network"])(
                torch.from_numpy(rows[:, : prior.z_dim]), torch.from_numpy(rows[:, -width:])
            )
        stored = {name[4:]: torch.as_tensor(value) for name, value in arrays.items() if name.startswith("net/")}
        net.load_state_dict(stored)
        net.eval()
        standardise = Standardise.from_arrays(arrays)
        return cls(prior, header["network"], net, standardise, tuple(header["names"]), header["info"])

    def _h(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.array(self._standardise(jnp.asarray(x)), np.float32))


class NullTracker:
    """Takes the metrics that sbi would otherwise write to a folder in the working directory."""

    log_dir = None

    def log_metric(self, *_: Any, **__: Any) -> None:
        """Discard."""

    log_metrics = log_params = add_figure = flush = log_metric


@contextlib.contextmanager
def quiet_torch(seed: int) -> Iterator[None]:
    """One torch thread, a seed of our own and no chatter; the thread count and generator are restored."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            for module in ("sbi", "nflows", "zuko", "torch"):
                warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
            warnings.filterwarnings("ignore", message="Maximum number of epochs")  # FitInfo says it
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _builder(spec: Mapping[str, Any]) -> Any:
    from sbi.neural_nets import posterior_nn

    # x is standardised already, and z is standard normal under the prior
    return posterior_nn(**{"z_score_theta": "none", "z_score_x": "none", **spec})


def _train(
    spec: Mapping[str, Any], training: Mapping[str, Any], z: np.ndarray, h: np.ndarray, progress: bool
) -> tuple[Any, Any]:
    import torch
    from sbi.inference import NPE_C

    dim = z.shape[1]
    prior = torch.distributions.MultivariateNormal(torch.zeros(dim), torch.eye(dim))
    trainer = NPE_C(prior=prior, density_estimator=_builder(spec), tracker=NullTracker(), show_progress_bars=progress)
    trainer.append_simulations(torch.from_numpy(z.copy()), torch.from_numpy(h.copy()))
    said = io.StringIO()  # sbi prints that it has converged
    with contextlib.nullcontext() if progress else contextlib.redirect_stdout(said):
        net = trainer.train(**training)
    net.eval()
    return net, trainer
