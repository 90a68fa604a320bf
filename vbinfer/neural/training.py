"""Training by minibatches: compiled epochs, parallel ensembles, early stopping.

The members of an ensemble are one module whose arrays carry a leading axis; an epoch is one compiled program that
trains all of them:

    epoch          vmap over members
      steps        loop over minibatches   (params, moments) -> one optimiser step
      held-out     loss after the epoch    -> best parameters so far, and their epoch
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.execute.options import quickly
from vbinfer.io.fingerprint import traced
from vbinfer.neural.checkpoint import Checkpoint
from vbinfer.neural.fit_info import has_converged

_EPOCHS_AT_1000, _EPOCHS_FALL, _EPOCHS = 94, 0.6, (25, 120)
_OF_THE_DEFAULT = ("learning_rate", "weight_decay", "clip_norm")

Pairs = tuple[Array, Array]
"""What a density is over `[n, D]`, and what it is given `[n, C]`."""
LossFn = Callable[[Any, Pairs, PRNGKey], Array]
"""`(member, batch, key)` to the mean loss of the batch."""


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained.

    By default Adam with decoupled weight decay, clipped gradients and a step size that falls to 0 along a cosine over
    `max_epochs`. Few epochs with a large first step generalise better than many with a small one: the network is done
    before it overfits. Training stops after `patience` epochs without a better held-out loss; the parameters of the
    best epoch are kept.

    Args:
        max_epochs: passes over the n draws at most; None: 94 (1,000 / n)^0.6, within 25 to 120.
        batch_size: draws per gradient step.
        learning_rate: largest step size.
        patience: epochs without a better held-out loss before stopping.
        validation_fraction: share of the draws held out.
        weight_decay: decoupled decay of the weights, per unit of step size.
        clip_norm: largest norm of a gradient.
        optimizer: any optax optimiser, `optax.adam(1e-3)`, in place of the default; it brings its own step size, decay
            and clipping. Make it once and pass the same object to fits that are to share a compiled program. A
            checkpoint knows it by its arithmetic: the update is traced on a small tree of a matrix and a vector, so
            rules that tell leaves apart by name are one optimiser to it.

    Loshchilov & Hutter 2019, ICLR, doi:10.48550/arXiv.1711.05101.
    """

    max_epochs: int | None = None
    batch_size: int = 200
    learning_rate: float = 5e-3
    patience: int = 20
    validation_fraction: float = 0.1
    weight_decay: float = 0.1
    clip_norm: float = 5.0
    optimizer: optax.GradientTransformation | None = None

    def __post_init__(self) -> None:
        if self.max_epochs is not None:
            _check.count(self.max_epochs, "max_epochs", 50)
        _check.count(self.batch_size, "batch_size", 200)
        _check.count(self.patience, "patience", 20)
        _check.positive(self.learning_rate, "learning_rate", 5e-3)
        _check.positive(self.clip_norm, "clip_norm", 5.0)
        _check.fraction(self.validation_fraction, "validation_fraction", 0.1)
        _check.number(self.weight_decay, "weight_decay", 0.1, "at least 0", least=0.0)
        if self.optimizer is not None:
            self._check_optimizer()

    def _check_optimizer(self) -> None:
        if not isinstance(self.optimizer, optax.GradientTransformation):
            given = getattr(self.optimizer, "__name__", repr(self.optimizer))
            raise TypeError(f"optimizer={given} was given; expected an optax optimiser, such as optax.adam(1e-3)")
        for name in _OF_THE_DEFAULT:
            if getattr(self, name) != getattr(Training, name):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} was given beside optimizer=, which has its own; write it there: "
                    "optimizer=optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(1e-3, weight_decay=0.1))"
                )

    def epochs(self, n: int) -> int:
        """Passes over n draws at most."""
        if self.max_epochs is not None:
            return self.max_epochs
        return int(np.clip(round(_EPOCHS_AT_1000 * (n / 1_000) ** -_EPOCHS_FALL), *_EPOCHS))

    def steps(self, n: int) -> int:
        """Gradient steps of an epoch over n draws."""
        return max(1, -(-n // self.batch_size))

    def to_spec(self) -> dict[str, Any]:
        """JSON-able options.

        The optimiser is the hash of its traced update.
        """
        spec = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if (optimizer := self.optimizer) is not None:
            tree = {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}
            spec["optimizer"] = traced(lambda grads: optimizer.update(grads, optimizer.init(tree), tree), tree)[0]
        return spec


class TrainingTask(NamedTuple):
    """What is trained, on what and how.

    `members` are modules of one structure, their arrays stacked along a leading axis; floating arrays are trained, the
    others (orders of coordinates, masks) stay. What is no array here decides the compiled program.
    """

    members: Any
    loss: LossFn
    data: Pairs
    held: Pairs
    options: Training


class Trained(NamedTuple):
    """Members at their best epochs, stacked, with their losses."""

    members: Any
    train: np.ndarray
    """Loss `[member, epoch]`; NaN after a member has stopped."""
    val: np.ndarray
    best_epoch: np.ndarray
    converged: bool


class _State(NamedTuple):
    """Carry of a member from epoch to epoch."""

    params: Any
    moments: Any
    best: Any
    lowest: Any  # arrays, of NumPy before the first epoch
    best_epoch: Any


def train(
    task: TrainingTask,
    key: PRNGKey,
    report: Callable[[int, float, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train every member of a task.

    Each has its own minibatches and best epoch.


    Args:
        task: members, loss, pairs to train on and to stop by, options.
        key: order of the minibatches. Epoch e uses `fold_in(key, e)`, so a resumed run equals an uninterrupted one.
        report: called after each epoch with its number and both losses, means over the members.
        checkpoint: keeps the state every few seconds and when interrupted; a run goes on from what it holds.
    """
    params, fixed, static = _parts(task.members)
    size, cap = len(jax.tree_util.tree_leaves(params)[0]), task.options.epochs(len(task.data[0]))
    keys = jax.random.split(key, size)
    state, curves = _start(keys, task), np.zeros((0, 2, size))
    if checkpoint is not None:
        state, curves = checkpoint.restore(state, curves)
    try:
        while len(curves) < cap:
            # epochs since the best one, member by member
            running = len(curves) - np.asarray(state.best_epoch) < task.options.patience
            if not running.any():
                break
            after, losses = _epoch(state, np.asarray(len(curves)), running, keys, task)
            row = np.where(running, np.asarray(losses, float), np.nan)
            state, curves = after, np.concatenate([curves, row[None]])  # together: an interrupt may fall anywhere
            if report is not None:
                report(len(curves), *(float(np.nanmean(values)) for values in row))
            if checkpoint is not None:
                checkpoint.offer(state, curves)
    finally:
        if checkpoint is not None:
            checkpoint.write(state, curves)
    fitted, val = curves.transpose(1, 2, 0)
    converged = all(has_converged(*rows, cap) for rows in zip(fitted, val, strict=True))
    return Trained(eqx.combine(state.best, fixed, static), fitted, val, np.asarray(state.best_epoch), converged)


def _parts(members: Any) -> tuple[Any, Any, Any]:
    """Trained arrays, other arrays, and what is no array."""
    arrays, static = eqx.partition(members, eqx.is_array)
    return *eqx.partition(arrays, eqx.is_inexact_array), static


def _optimizer(options: Training, n: int) -> optax.GradientTransformation:
    if options.optimizer is not None:
        return options.optimizer
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.epochs(n) * options.steps(n))
    decay = optax.adamw(schedule, weight_decay=options.weight_decay)
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), decay)


def _flat(options: Training, params: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Parameters as the optimiser sees them, and the way back.

    One vector for the default, whose every operation would else be compiled for each leaf; the tree for one of the
    user's, which may tell leaves apart.
    """
    return ravel_pytree(params) if options.optimizer is None else (params, lambda tree: tree)


@eqx.filter_jit
def _moments(params: Any, options: Training, n: int) -> Any:
    return jax.vmap(lambda one: _optimizer(options, n).init(_flat(options, one)[0]))(params)


def _start(keys: Array, task: TrainingTask) -> _State:
    params, size = _parts(task.members)[0], len(keys)
    moments = _moments(params, task.options, len(task.data[0]))
    state = _State(params, moments, params, np.full(size, np.inf), np.zeros(size, int))
    # the untrained networks by the program of an epoch, which takes no step then: theirs is the first best loss
    return _epoch(state, np.asarray(-1), np.ones(size, bool), keys, task)[0]


@quickly
def _epoch(
    state: _State, number: np.ndarray, running: np.ndarray, keys: Array, task: TrainingTask
) -> tuple[_State, tuple[Array, Array]]:
    _, fixed, static = _parts(task.members)
    (y, c), n = task.data, len(task.data[0])
    optimizer, steps = _optimizer(task.options, n), task.options.steps(n)
    rows = n // steps  # equal batches: the last n - steps * rows of an epoch's order wait for another epoch

    def one(state: _State, fixed: Any, running: Any, key: PRNGKey) -> tuple[_State, tuple[Array, Array]]:
        flat, tree_of = _flat(task.options, state.params)

        def loss(flat: Any, batch: Pairs, key: PRNGKey) -> Array:
            return task.loss(eqx.combine(tree_of(flat), fixed, static), batch, key)

        # keys by epoch number, not carried along: a resumed run draws what an uninterrupted one does
        k_order, k_loss = jax.random.split(jax.random.fold_in(key, number))
        order = jax.random.permutation(k_order, n)[: steps * rows].reshape(steps, rows)
        k_steps = jax.random.split(k_loss, steps)

        def step(i: Array, carry: Any) -> Any:
            flat, moments, total = carry
            value, grads = jax.value_and_grad(loss)(flat, (y[order[i]], c[order[i]]), k_steps[i])
            updates, moments = optimizer.update(grads, moments, flat)
            return optax.apply_updates(flat, updates), moments, total + value

        carry = (flat, state.moments, jnp.zeros(()))
        flat, moments, total = jax.lax.fori_loop(0, jnp.where(number < 0, 0, steps), step, carry)
        val, params = loss(flat, task.held, key), tree_of(flat)
        # a member that has stopped is computed along with the others, and never chosen again; NaN is no better
        better = running & (val < state.lowest)
        pick = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        best = jax.tree_util.tree_map(pick, params, state.best)
        after = _State(params, moments, best, pick(val, state.lowest), pick(number + 1, state.best_epoch))
        return after, (total / steps, val)

    return jax.vmap(one)(state, fixed, running, keys)


def split_rows(n: int, fraction: float, key: PRNGKey) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out."""
    order = np.asarray(jax.random.permutation(key, n))
    held = min(max(2, round(fraction * n)), n - 2)
    return order[held:], order[:held]


@contextlib.contextmanager
def progress_bar(shown: bool, epochs: int, label: str) -> Iterator[Callable[[int, float, float], None] | None]:
    """Yield a `report` that shows epochs on stderr, or None."""
    if not shown:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=epochs, desc=f"training {label}", unit="epoch") as bar:

        def report(epoch: int, train: float, val: float) -> None:
            bar.set_postfix_str(f"held-out loss {val:.3f}", refresh=False)
            bar.update(epoch - bar.n)

        yield report
