"""Base of NPE, NLE and NRE: options, `fit`, files.

An estimator is a frozen dataclass of options. `fit` is the same for all of them; a member of the family says what its
network is over and what it is given (`_pairs`), how it is built, trained, joined and judged.
"""

import abc
import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.draws.draws import Draws
from vbinfer.execute.batches import key_ints
from vbinfer.execute.options import quickly
from vbinfer.io import npz
from vbinfer.neural.checkpoint import Checkpoint, from_arrays, to_arrays
from vbinfer.neural.densities import density_from_spec
from vbinfer.neural.densities.base import AbstractConditional, members_of, mixture, stack, training_loss
from vbinfer.neural.embeddings import AbstractEmbedding, check_embedding, check_saved, describe, embedding_from_spec
from vbinfer.neural.fit_info import FitInfo, contrastive_gain
from vbinfer.neural.missing import hiding
from vbinfer.neural.scaler import FeatureScaler, Standardise, warn_of_lost
from vbinfer.neural.training import LossFn, Pairs, Trained, Training, TrainingTask, progress_bar, split_rows, train
from vbinfer.neural.training_data import training_pairs
from vbinfer.priors.prior import Prior


class ThetaContext(eqx.Module):
    """theta as a network sees it: z and standardised theta.

    A simulator is often smooth in theta where z, in which the prior is standard normal, has long tails (a uniform
    prior), and in z where theta has (a log-normal one), so the network is given both.
    """

    prior: Prior = eqx.field(static=True)
    scale: Standardise

    @classmethod
    def fit(cls, prior: Prior, z: np.ndarray) -> "ThetaContext":
        """Fit to training rows z `[n, Dz]`."""
        return cls(prior, Standardise.fit(np.asarray(prior.ravel(prior.from_z(z)[0]))))

    @classmethod
    def from_arrays(cls, prior: Prior, arrays: Mapping[str, np.ndarray]) -> "ThetaContext":
        """Invert `to_arrays`."""
        mine = {name.removeprefix("theta/"): value for name, value in arrays.items() if name.startswith("theta/")}
        return cls(prior, Standardise.from_arrays(mine))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Numbers by name, as files hold them."""
        return {f"theta/{name}": value for name, value in self.scale.to_arrays().items()}

    @eqx.filter_jit
    def __call__(self, z: Array | np.ndarray) -> Array:
        """`[..., Dz + D]` of z `[..., Dz]`."""
        return jnp.concatenate([z, self.scale(self.prior.ravel(self.prior.from_z(z)[0]))], axis=-1)


class AbstractAmortized(abc.ABC):
    """A trained network, for any x of its simulator.

    Attributes:
        prior: the prior of the draws.
        estimator: the options of the fit.
        scaler: names and scale of the F features of x.
        info: JSON-able notes of the fit: `sentence`, `info_gain`, `converged`.
    """

    method: ClassVar[str]
    options: ClassVar[type["AbstractEstimator[Any]"]]

    def __init__(
        self,
        prior: Prior,
        estimator: Any,
        network: Any,
        scaler: FeatureScaler,
        info: Mapping[str, Any],
        context: ThetaContext | None = None,
    ) -> None:
        self.prior, self.estimator, self.scaler, self.info = prior, estimator, scaler, dict(info)
        self._network, self._context = network, context

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features of x."""
        return self.scaler.names

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Name the features of x_o outside the training draws."""
        return self.scaler.outside(x_o)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON.

        `vb.load(path)` rebuilds the same network, bit for bit.

        Raises:
            TypeError: an embedding of your own, whose code a file cannot hold.
        """
        check_saved(self.estimator.embedding)
        header = {
            **self.estimator.to_spec(),
            "prior": self.prior.to_spec(),
            "names": self.names,
            "info": self.info,
            "versions": npz.versions("flowjax", "equinox"),
        }
        arrays = to_arrays(self._network, "network") | self.scaler.standardise.to_arrays()
        if self._context is not None:
            arrays |= self._context.to_arrays()
        npz.write(path, self.method.lower(), header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
        """Rebuild from what `save` wrote; called by `vb.load`."""
        prior, own = Prior.from_spec(header["prior"]), cls.options.from_spec(header)
        scaler = FeatureScaler.from_saved(header["names"], arrays, bool(own.missing))
        context = ThetaContext.from_arrays(prior, arrays) if own.sees_theta else None
        # a network of zeros in, to know the widths; its structure then takes the saved numbers
        y, c = own._pairs(scaler, context, np.zeros((1, prior.z_dim)), np.zeros((1, len(scaler.names))))
        made = header["versions"].get("flowjax", "unknown")
        other = (
            f"the file's network does not fit flowjax {npz.versions('flowjax')['flowjax']}; it was written with "
            f"flowjax {made}. Load it with that version, or train again"
        )
        network = from_arrays(own._join(own._members(jax.random.key(0), y, c)), "network", arrays, other)
        return cls(prior, own, network, scaler, header["info"], context)


Fitted = TypeVar("Fitted", bound=AbstractAmortized)


class AbstractEstimator(abc.ABC, Generic[Fitted]):
    """Options of a neural estimator; `fit` trains it on draws."""

    fitted: ClassVar[Any]
    """The class that `fit` returns."""
    sees_theta: ClassVar[bool] = False
    """Whether its network is given theta."""
    readers: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "density": density_from_spec,
        "embedding": embedding_from_spec,
    }
    """How options are read from files, where not as they stand."""
    embedding: Any = None
    missing: Any = 0.0
    ensemble: Any
    training: Any

    def fit(
        self,
        draws: Draws,
        prior: Prior,
        *,
        key: PRNGKey,
        progress: bool = False,
        checkpoint: str | Path | None = None,
        start: Fitted | None = None,
    ) -> tuple[Fitted, FitInfo]:
        """Train on the valid draws.

        Args:
            draws: from `sample_prior_predictive`; rows with `valid=False` are left out and counted. NRE takes draws of
                the prior only, NPE of the prior and of truncated priors, NLE of any proposal.
            prior: the prior that they came from.
            key: decides initial weights, the held-out rows and the minibatches.
            progress: show a progress bar.
            checkpoint: a file that holds the state of training; the same call again goes on from it, and gives what
                an uninterrupted one would have given.
            start: a fitted thing of the same options, parameters and features, whose weights training begins with, as
                those of a cheaper simulator. Features are scaled anew by these draws, so that a shift or scale between
                the two simulators is gone before training begins; where no epoch is better on the held-out draws, its
                weights are returned.

        Raises:
            ValueError: too few valid draws, draws of other parameters than the prior's, or a draw outside it; a
                proposal that this estimator cannot be trained on; a checkpoint of another fit; a start of other
                options, parameters or features; nothing but constant features, of NLE.
        """
        started = time.perf_counter()
        z, x = training_pairs(draws, prior)
        self._check_draws(draws, prior)
        k_split, k_fit = jax.random.split(_check.key(key))
        rows, held = split_rows(len(z), self.training.validation_fraction, k_split)
        # fitted to training rows only: held-out rows must not set scales
        own = self._sized(len(rows)) if start is None else self._like(start, draws, prior)
        k_init, k_train = jax.random.split(k_fit)
        columns = own.embedding.columns(x.shape[1]) if isinstance(own.embedding, AbstractEmbedding) else None
        scaler = FeatureScaler(draws.names, Standardise.fit(x[rows], columns), bool(own.missing))
        warn_of_lost(draws.names, scaler.standardise.lost(x[rows]))
        context = ThetaContext.fit(prior, z[rows]) if own.sees_theta else None
        y, c = own._pairs(scaler, context, z, scaler.standardise(np.asarray(x, jnp.result_type(float))))
        fitting, stopping = (jax.device_put((y[part], c[part])) for part in (rows, held))
        members = own._members(k_init, y, c) if start is None else members_of(start._network)
        loss = hiding(own.loss, own.missing, draws.names)
        task = TrainingTask(members, loss, fitting, stopping, own.training)
        begun = () if start is None else tuple(to_arrays(members, "start").values())
        kept = None if checkpoint is None else own._checkpoint(checkpoint, k_fit, (y, c, *begun))
        with progress_bar(progress, own.training.epochs(len(rows)), type(self).__name__) as report:
            trained = train(task, k_train, report, kept)
        fitted = own.fitted(prior, own, own._join(trained.members), scaler, {}, context)
        gain = own._gain(fitted, z[held], x[held], y[held], k_fit)
        info = _fit_info(trained, own.fitted.method, gain, (len(rows), len(held), len(draws) - len(z)), started)
        fitted.info.update(info.notes)
        return fitted, info

    def to_spec(self) -> dict[str, Any]:
        """JSON-able options of the network."""
        return {name: describe(getattr(self, name)) for name in self._names()}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Any:
        """Invert `to_spec`; other entries are left alone."""
        there = [name for name in cls._names() if name in spec]
        return cls(**{name: cls.readers.get(name, lambda value: value)(spec[name]) for name in there})

    @classmethod
    def _names(cls: Any) -> list[str]:
        # how it was trained is no part of a network
        return [field.name for field in dataclasses.fields(cls) if field.name != "training"]

    @property
    def loss(self) -> LossFn:
        """Loss of one network, that of a density unless overridden.

        Equal for equal options, as it decides the compiled program.
        """
        return density_loss

    @abc.abstractmethod
    def _pairs(self, scaler: FeatureScaler, context: Any, z: np.ndarray, h: np.ndarray) -> tuple[Any, Any]:
        """Rows the network is over, and rows given."""

    @abc.abstractmethod
    def _build(self, key: PRNGKey, dim: int, width: int) -> Any:
        """One untrained network over `[dim]` given `[width]`."""

    def _gain(self, fitted: Any, z: np.ndarray, x: np.ndarray, y: np.ndarray, key: PRNGKey) -> float:
        """Nats over the prior, from held-out rows."""
        score = lambda z, y: _scores(fitted._network, fitted._context, z, y)  # noqa: E731
        return contrastive_gain(score, fitted.prior, z, y, jax.random.fold_in(key, 1))

    def _check_draws(self, draws: Draws, prior: Prior) -> None:
        """Refuse draws that this estimator cannot be trained on."""

    def _sized(self, n: int) -> Any:
        """These options with an ensemble size, for n draws."""
        return self

    def _join(self, members: Any) -> Any:
        """The network of a stack of trained members."""
        return mixture(members, self.size)

    @property
    def size(self) -> int:
        """Number of networks; 1 while it is left open."""
        return self.ensemble or 1

    def _members(self, key: PRNGKey, y: Array, c: Array) -> Any:
        return stack([self._build(k, y.shape[-1], c.shape[-1]) for k in jax.random.split(key, self.size)])

    def _like(self, start: Any, draws: Draws, prior: Prior) -> Any:
        """These options with the ensemble size of a start.

        Raises:
            ValueError: its weights are of another network.
        """
        _check.of_kind(start, "start", self.fitted, "start=amortized, which fit returned for other draws")
        own: Any = dataclasses.replace(self, ensemble=start.estimator.ensemble)  # type: ignore[type-var]  # a dataclass
        mine, other = own.to_spec(), start.estimator.to_spec()
        pairs = {name: (other[name], mine[name]) for name in mine}
        pairs |= {"parameters": (start.prior.shapes, prior.shapes), "features": (start.names, draws.names)}
        for name, (was, now) in pairs.items():
            if was != now:
                raise ValueError(
                    f"start has the {name} {was}, this fit {now}; training goes on from the same network only: use "
                    f"start.estimator, and draws of the same parameters and Summary"
                )
        return own

    def _checkpoint(self, path: str | Path, key: PRNGKey, data: Sequence[Any]) -> Checkpoint:
        method, options = type(self).__name__, self.training.to_spec()
        return Checkpoint(path, {**self.to_spec(), "method": method, "training": options, "key": key_ints(key)}, data)

    def _check_options(self, **kinds: tuple[type, str]) -> None:
        """Refuse options of the wrong kind."""
        kinds["training"] = (Training, "vb.densities.Training(max_epochs=..., batch_size=...)")
        for option, (kind, wanted) in kinds.items():
            value = getattr(self, option)
            if not isinstance(value, kind):
                given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
                raise TypeError(f"{type(self).__name__}({option}=...) was given {given}; expected {wanted}")
        if self.ensemble is not None:
            _check.count(self.ensemble, "ensemble", 2)
        check_embedding(self.embedding)


def density_loss(network: AbstractConditional, batch: Pairs, key: PRNGKey) -> Array:
    """Mean loss of a density: -log q, or its own."""
    keys = jax.random.split(key, len(batch[0]))
    return jnp.mean(jax.vmap(lambda y, c, k: training_loss(network, y, c, k))(*batch, keys))


@quickly
def _scores(network: Any, context: Any, z: Any, y: Any) -> Array:
    return jax.vmap(network.log_prob)(y, context(z))


def _fit_info(trained: Trained, method: str, gain: float, numbers: tuple[int, int, int], started: float) -> FitInfo:
    """The record of a fit.

    Curves are means over the members still training.
    """
    # epoch 0 is the untrained network, which has no loss in the curves
    best = [row[epoch - 1] if epoch else np.nan for row, epoch in zip(trained.val, trained.best_epoch, strict=True)]
    first = int(np.nanargmin(best)) if np.isfinite(best).any() else 0
    with warnings.catch_warnings():  # of an epoch in which no loss was a number
        warnings.simplefilter("ignore", RuntimeWarning)
        train_curve, val_curve = (np.nanmean(table, axis=0) for table in (trained.train, trained.val))
    return FitInfo(
        method=method,
        backend="flowjax",
        train=train_curve,
        val=val_curve,
        best_epoch=int(trained.best_epoch[first]),
        info_gain=gain,
        converged=trained.converged,
        num_train=numbers[0],
        num_val=numbers[1],
        seconds=time.perf_counter() - started,
        versions=npz.versions("flowjax", "equinox", "optax"),
        num_failed=numbers[2],
        members=tuple(float(value) for value in best),
    )
