"""Maximum likelihood by minibatches: whole epochs compiled, early stopping, the best epoch's parameters returned."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vbinfer._typing import PRNGKey


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train."""

    max_epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    weight_decay: float = 0.1


_STILL_IMPROVING = 0.02


class Trained(NamedTuple):
    """The model of the best epoch and what happened on the way."""

    model: Any
    train: np.ndarray
    val: np.ndarray
    best_epoch: int
    converged: bool


LossFn = Callable[[Any, Array, Array], Array]


def train(model: Any, loss_fn: LossFn, data: tuple[Array, Array], held: tuple[Array, Array], key: PRNGKey,
          options: Options, report: Callable[[int, float, float], None] | None = None) -> Trained:  # fmt: skip
    """Fit `model` by Adam with gradient clipping and a cosine schedule.

    Args:
        model: a pytree; its floating arrays are trained.
        loss_fn: `(model, z, h)` to the loss of one pair.
        data, held: `(z [n, D], h [n, F])` to train on and to stop by.
        key: order of the minibatches.
        options: epochs, batch size, step size, patience.
        report: called after each epoch with its number and both losses.
    """
    n = len(data[0])
    steps = max(1, -(-n // options.batch_size))
    size = n // steps
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.max_epochs * steps)
    optimiser = optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=options.weight_decay))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    def mean_loss(params: Any, z: Array, h: Array) -> Array:
        return jnp.mean(jax.vmap(loss_fn, in_axes=(None, 0, 0))(eqx.combine(params, static), z, h))

    @jax.jit
    def epoch(params: Any, state: Any, key: PRNGKey, data: tuple[Array, Array]) -> Any:
        order = jax.random.permutation(key, n)[: steps * size].reshape(steps, size)

        def step(carry: Any, rows: Array) -> Any:
            params, state = carry
            value, grads = jax.value_and_grad(mean_loss)(params, data[0][rows], data[1][rows])
            updates, state = optimiser.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, state), losses = jax.lax.scan(step, (params, state), order)
        return params, state, jnp.mean(losses)

    state, best, best_epoch = optimiser.init(params), params, 0
    curves: list[tuple[float, float]] = []
    lowest = float(mean_loss(params, *held))
    for i in range(options.max_epochs):
        params, state, fit = epoch(params, state, jax.random.fold_in(key, i), data)
        curves.append((float(fit), float(mean_loss(params, *held))))
        if curves[-1][1] < lowest:
            lowest, best, best_epoch = curves[-1][1], params, i + 1
        if report is not None:
            report(i + 1, *curves[-1])
        if i + 1 - best_epoch >= options.patience:
            break
    table = np.array(curves)
    return Trained(eqx.combine(best, static), table[:, 0], table[:, 1], best_epoch, _converged(table[:, 1], options))


def _converged(val: np.ndarray, options: Options) -> bool:
    """False when the cap on epochs ended a fit whose held-out loss still fell over its last third.

    Falling means by 0.02 nats, or by a twentieth of all that it fell where that is less.
    """
    if len(val) < options.max_epochs:
        return True
    before, last = np.split(val, [len(val) - -(-len(val) // 3)])
    if len(before) == 0:
        return False
    still = before.min() - last.min()
    return bool(still <= min(_STILL_IMPROVING, 0.05 * (val[0] - val.min())))
