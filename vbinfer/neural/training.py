"""Maximum likelihood by minibatches: whole epochs compiled, members of an ensemble side by side, early stopping."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.neural.checkpoint import Checkpoint

_STILL_IMPROVING = 0.02
_BY_HEART = 0.05
_EPOCHS_AT_1000, _EPOCHS_FALL, _EPOCHS = 94, 0.6, (25, 120)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained: Adam with decoupled weight decay, clipped gradients, a falling step size.

    The step size falls to 0 along a cosine over `max_epochs`. Few epochs with a large first step generalise better than
    many with a small one: the network is done before it learns the draws by heart. Training stops after `patience`
    epochs without a better held-out loss; the parameters of the best epoch are kept.

    Args:
        max_epochs: passes over the n draws at most; None: 94 (1,000 / n)^0.6, within 25 to 120.
        batch_size: draws per gradient step.
        learning_rate: largest step size.
        patience: epochs without a better held-out loss before stopping.
        validation_fraction: share of the draws held out.
        weight_decay: decoupled decay of the weights, per unit of step size.
        clip_norm: largest norm of a gradient.

    Loshchilov & Hutter 2019, ICLR, doi:10.48550/arXiv.1711.05101.
    """

    max_epochs: int | None = None
    batch_size: int = 200
    learning_rate: float = 5e-3
    patience: int = 20
    validation_fraction: float = 0.1
    weight_decay: float = 0.1
    clip_norm: float = 5.0

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if name == "max_epochs" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"Training({name}={value!r}) was given; expected a whole number of at least 1")
        for name in ("learning_rate", "clip_norm", "weight_decay"):
            value, may_be_zero = getattr(self, name), name == "weight_decay"
            if not (np.isfinite(value) and (value > 0.0 or (may_be_zero and value == 0.0))):
                wanted = "of at least 0" if may_be_zero else "above 0"
                raise ValueError(f"Training({name}={value!r}) was given; expected a finite number {wanted}")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction={self.validation_fraction:g} was given; expected a share between 0 and 1, such "
                "as 0.1"
            )

    def epochs(self, n: int) -> int:
        """Passes over n draws at most."""
        if self.max_epochs is not None:
            return self.max_epochs
        return int(np.clip(round(_EPOCHS_AT_1000 * (n / 1_000) ** -_EPOCHS_FALL), *_EPOCHS))


class Data(NamedTuple):
    """Pairs to train on: what the density is over `[n, D]`, and what it is given `[n, C]`."""

    y: Array
    c: Array


class Trained(NamedTuple):
    """The members at their best epochs, stacked, and what happened on the way."""

    members: Any
    train: np.ndarray
    """Loss `[member, epoch]`; NaN after a member has stopped."""
    val: np.ndarray
    best_epoch: np.ndarray
    converged: bool


LossFn = Callable[[Any, Data, PRNGKey], Array]
"""`(member, batch, key)` to the mean loss of the batch."""


class _State(NamedTuple):
    """What a member carries from epoch to epoch."""

    params: Any
    optimiser: Any
    best: Any
    lowest: Array
    best_epoch: Array


class _Problem(NamedTuple):
    """What stays the same in every epoch; `static` and what is below it decide the compiled program."""

    data: Data
    held: Data
    keys: Array
    fixed: Any
    """Arrays of the members that are not trained, stacked: orders of coordinates, masks."""
    static: Any
    loss_fn: LossFn
    options: Training


def train(members: Any, loss_fn: LossFn, data: Data, held: Data, key: PRNGKey, options: Training,
          report: Callable[[int, float, float], None] | None = None,
          checkpoint: Checkpoint | None = None) -> Trained:  # fmt: skip
    """Fit every member of a stack; each has its own minibatches and its own best epoch.

    Args:
        members: modules of one structure, their arrays stacked along a leading axis; floating arrays are trained.
        loss_fn: mean loss of one member on a batch.
        data, held: pairs to train on and to stop by.
        key: order of the minibatches. Epoch e uses `fold_in(key, e)`, so a resumed run equals an uninterrupted one.
        options: epochs, batch size, step size, patience.
        report: called after each epoch with its number and both losses, means over the members.
        checkpoint: keeps the state every few seconds and when interrupted; a run goes on from what it holds.
    """
    arrays, static = eqx.partition(members, eqx.is_array)
    params, fixed = eqx.partition(arrays, eqx.is_inexact_array)
    size = jax.tree_util.tree_leaves(params)[0].shape[0]
    problem = _Problem(data, held, jax.random.split(key, size), fixed, static, loss_fn, options)
    state, curves, cap = _start(params, problem), np.zeros((0, 2, size)), options.epochs(len(data.y))
    if checkpoint is not None:
        state, curves = checkpoint.restore(state, curves)
    try:
        while len(curves) < cap:
            running = len(curves) - np.asarray(state.best_epoch) < options.patience
            if not running.any():
                break
            after, losses = _epoch(state, jnp.asarray(len(curves)), jnp.asarray(running), problem)
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
    converged = all(_converged(*rows, cap) for rows in zip(fitted, val, strict=True))
    return Trained(eqx.combine(state.best, fixed, static), fitted, val, np.asarray(state.best_epoch), converged)


def _optimiser(n: int, options: Training) -> tuple[Any, int]:
    """The optimiser, and the gradient steps in an epoch over n draws."""
    steps = max(1, -(-n // options.batch_size))
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.epochs(n) * steps)
    decay = optax.adamw(schedule, weight_decay=options.weight_decay)
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), decay), steps


@eqx.filter_jit
def _start(params: Any, problem: _Problem) -> _State:
    optimiser, _ = _optimiser(len(problem.data.y), problem.options)

    def one(params: Any, fixed: Any, key: PRNGKey) -> _State:
        lowest = problem.loss_fn(eqx.combine(params, fixed, problem.static), problem.held, key)
        return _State(params, optimiser.init(params), params, lowest, jnp.asarray(0))

    return jax.vmap(one)(params, problem.fixed, problem.keys)


@eqx.filter_jit
def _epoch(state: _State, number: Array, running: Array, problem: _Problem) -> tuple[_State, tuple[Array, Array]]:
    data, n = problem.data, len(problem.data.y)
    optimiser, steps = _optimiser(n, problem.options)
    rows = n // steps

    def one(state: _State, fixed: Any, running: Array, key: PRNGKey) -> tuple[_State, tuple[Array, Array]]:
        def loss(params: Any, batch: Data, key: PRNGKey) -> Array:
            return problem.loss_fn(eqx.combine(params, fixed, problem.static), batch, key)

        k_order, k_loss = jax.random.split(jax.random.fold_in(key, number))
        order = jax.random.permutation(k_order, n)[: steps * rows].reshape(steps, rows)

        def step(carry: Any, at: tuple[Array, PRNGKey]) -> Any:
            batch = Data(data.y[at[0]], data.c[at[0]])
            value, grads = jax.value_and_grad(loss)(carry[0], batch, at[1])
            updates, moments = optimiser.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), moments), value

        carry = (state.params, state.optimiser)
        (params, moments), losses = jax.lax.scan(step, carry, (order, jax.random.split(k_loss, steps)))
        val = loss(params, problem.held, key)
        better = running & (val < state.lowest)
        pick = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        best = jax.tree_util.tree_map(pick, params, state.best)
        after = _State(params, moments, best, pick(val, state.lowest), pick(number + 1, state.best_epoch))
        return after, (jnp.mean(losses), val)

    return jax.vmap(one)(state, problem.fixed, running, problem.keys)


def _converged(fitted: np.ndarray, val: np.ndarray, cap: int) -> bool:
    """False when the cap on epochs ended a fit that more epochs would have bettered.

    That is one whose held-out loss still fell over its last third, by 0.02 nats or by a twentieth of all that it fell
    where that is less, and was not yet above the training loss by 0.05 nats: from there on draws are what is missing,
    and a network trained for longer learns them by heart. A loss that was never a number is not converged either.
    """
    val = val[: np.flatnonzero(~np.isnan(val))[-1] + 1] if np.isfinite(val).any() else val[:0]
    if len(val) == 0:
        return False
    best = int(np.nanargmin(val))
    if len(val) < cap or val[best] - fitted[best] > _BY_HEART:
        return True
    before, last = np.split(val, [len(val) - -(-len(val) // 3)])
    if len(before) == 0:
        return False
    still = np.nanmin(before) - np.nanmin(last)
    return bool(still <= min(_STILL_IMPROVING, 0.05 * (val[0] - val[best])))
