"""What the JAX estimators share: draws made ready, the members of an ensemble trained, the record of the fit."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.draws.draws import Draws
from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.neural.checkpoint import Checkpoint
from vbinfer.neural.densities.base import AbstractConditional, stack
from vbinfer.neural.embeddings import AbstractEmbedding
from vbinfer.neural.fit_info import FitInfo
from vbinfer.neural.scaler import SummarySpace
from vbinfer.neural.standardise import Standardise
from vbinfer.neural.training import Data, LossFn, Trained, Training, train
from vbinfer.neural.training_data import reporter, split_rows, training_pairs
from vbinfer.priors.prior import Prior


class Ready(NamedTuple):
    """Draws as a network sees them: z `[n, D]`, standardised summaries h `[n, F]`, rows to fit and to hold out."""

    prior: Prior
    space: SummarySpace
    z: Array
    h: Array
    fitting: np.ndarray
    held: np.ndarray
    num_failed: int
    key: PRNGKey
    started: float


def ready(draws: Draws, prior: Prior, training: Training, key: PRNGKey, embedding: Any = None) -> Ready:
    """Check and standardise the valid draws, and split them."""
    started, key = time.perf_counter(), _check.key(key)
    z, x = training_pairs(draws, prior)
    k_split, k_fit = jax.random.split(key)
    fitting, held = split_rows(len(z), training.validation_fraction, k_split)
    columns = embedding.columns(x.shape[1]) if isinstance(embedding, AbstractEmbedding) else None
    standardise = Standardise.fit(x[fitting], columns)
    h = standardise(jnp.asarray(x, jnp.result_type(float)))
    space = SummarySpace(draws.names, standardise)
    return Ready(prior, space, z, h, fitting, held, len(draws) - len(z), k_fit, started)


def check_options(estimator: Any, **kinds: tuple[type, str]) -> None:
    """Refuse options of the wrong kind when an estimator is made."""
    name = type(estimator).__name__
    for option, (kind, wanted) in kinds.items():
        value = getattr(estimator, option)
        if not isinstance(value, kind):
            given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
            raise TypeError(f"{name}({option}=...) was given {given}; expected {wanted}")
    if estimator.ensemble is not None:
        _check.count(estimator.ensemble, "ensemble")


class Job(NamedTuple):
    """What an estimator trains: how a member is made, its loss, and the pairs."""

    build: Callable[[PRNGKey], Any]
    loss: LossFn
    y: Array
    c: Array
    study: Mapping[str, Any]


def likelihood_loss(network: AbstractConditional, batch: Data, _: PRNGKey) -> Array:
    """Mean negative log q(y | c)."""
    return -jnp.mean(jax.vmap(network.log_prob)(batch.y, batch.c))


def fit_members(
    made: Ready, job: Job, estimator: Any, progress: bool, checkpoint: str | Path | None
) -> tuple[Any, Trained]:
    """The trained members, stacked, and the record of training."""
    k_init, k_train = jax.random.split(made.key)
    members = stack([job.build(k) for k in jax.random.split(k_init, estimator.ensemble)])
    data, held = (Data(job.y[rows], job.c[rows]) for rows in (made.fitting, made.held))
    label, options = type(estimator).__name__, estimator.training
    kept = None
    if checkpoint is not None:
        study = {**job.study, "method": label, "training": repr(options), "key": key_ints(made.key)}
        kept = Checkpoint(checkpoint, study, (job.y, job.c))
    with reporter(progress, options.epochs(len(data.y)), label) as report:
        trained = train(members, job.loss, data, held, k_train, options, report, kept)
    return trained.members, trained


def record(made: Ready, trained: Trained, method: str, gain: float) -> FitInfo:
    """The record of a fit; curves are means over the members that were still training."""
    best = [row[epoch - 1] if epoch else np.nan for row, epoch in zip(trained.val, trained.best_epoch, strict=True)]
    first = int(np.nanargmin(best)) if np.isfinite(best).any() else 0
    with np.errstate(all="ignore"):
        curves = [np.array([np.mean(v[~np.isnan(v)]) if (~np.isnan(v)).any() else np.nan for v in table.T])
                  for table in (trained.train, trained.val)]  # fmt: skip
    return FitInfo(
        method=method,
        backend="flowjax",
        train=curves[0],
        val=curves[1],
        best_epoch=int(trained.best_epoch[first]),
        info_gain=gain,
        converged=trained.converged,
        num_train=len(made.fitting),
        num_val=len(made.held),
        seconds=time.perf_counter() - made.started,
        versions=npz.versions("flowjax", "equinox", "optax"),
        num_failed=made.num_failed,
        members=tuple(float(value) for value in best),
    )


def notes(info: FitInfo) -> dict[str, Any]:
    """What a fitted estimator remembers of its fit, JSON-able."""
    return {"sentence": info.sentence, "info_gain": info.info_gain, "converged": info.converged}


def network_arrays(network: Any) -> dict[str, np.ndarray]:
    """The numbers of a network by position, as a saved estimator holds them."""
    leaves = jax.tree_util.tree_leaves(eqx.filter(network, eqx.is_array))
    return {f"network/{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def network_from_arrays(empty: Any, arrays: Mapping[str, np.ndarray], versions: Mapping[str, str]) -> Any:
    """The network of a file, on the structure of one just built.

    Raises:
        ValueError: another structure, as another version of flowjax may build.
    """
    stored = [arrays[name] for name in sorted(arrays) if name.startswith("network/")]
    kept, static = eqx.partition(empty, eqx.is_array)
    known, structure = jax.tree_util.tree_flatten(kept)
    if [leaf.shape for leaf in known] != [leaf.shape for leaf in stored]:
        raise ValueError(
            f"the file's network does not fit flowjax {npz.versions('flowjax')['flowjax']}; it was written with "
            f"flowjax {versions.get('flowjax', 'unknown')}. Load it with that version, or train again"
        )
    leaves = [jnp.asarray(value) for value in stored]
    return eqx.combine(jax.tree_util.tree_unflatten(structure, leaves), static)


def build_members(build: Callable[[PRNGKey], Any], size: int) -> Any:
    """Untrained members, stacked, for their structure only."""
    members: Sequence[Any] = [build(jax.random.key(0)) for _ in range(size)]
    return stack(members)
