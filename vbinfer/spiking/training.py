"""Training of spiking networks on arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from vbinfer import _check
from vbinfer.spiking.layers import Network, trainable


class Training(NamedTuple):
    """What `fit` says of its training."""

    loss: np.ndarray
    """Mean loss of the batches of each epoch."""
    steps: int
    """Updates in all."""


def fit(
    net: Network,
    loss: Callable[[Array, Any], Array],
    data: tuple[Any, Any],
    *,
    optimizer: Any,
    epochs: int,
    batch_size: int,
    key: Any,
    checkpoint: bool = False,
    progress: bool = False,
) -> tuple[Network, Training]:
    """Train a network by backpropagation through time.

    Weights, and the parameters that `learn` of each neuron names, are changed; an epoch is one compiled program. What
    does not fill a batch is left out of an epoch; the order is drawn anew in each.

    Args:
        net: where training starts; it is not changed.
        loss: `loss(outputs [T, batch, ...], targets [batch, ...])`, a number.
        data: inputs `[sample, T, ...]` and targets `[sample, ...]`.
        optimizer: of optax, `optax.adam(1e-3)`.
        epochs, batch_size: numbers.
        key: JAX key, of the order of samples.
        checkpoint: see `Layer`.
        progress: show a bar.

    Raises:
        ValueError: another number of targets than of inputs; a loss that is not finite.
    """
    xs, targets = jnp.asarray(data[0]), jnp.asarray(data[1])
    if len(xs) != len(targets):
        raise ValueError(f"{len(targets)} targets were given for {len(xs)} samples; give one for each")
    epochs, batch_size = _check.count(epochs, "epochs", 10), _check.count(batch_size, "batch_size", 32, most=len(xs))
    n_batches = len(xs) // batch_size
    learned, fixed = eqx.partition(net, trainable(net))

    def cost(learned: Any, x: Array, target: Array) -> Array:
        outputs, _ = eqx.combine(learned, fixed)(jnp.swapaxes(x, 0, 1), checkpoint=checkpoint)
        return loss(outputs, target)

    @jax.jit
    def epoch(learned: Any, memory: Any, key: Array, xs: Array, targets: Array) -> tuple[Any, Any, Array]:
        def update(carry: tuple[Any, Any], at: Array) -> tuple[tuple[Any, Any], Array]:
            learned, memory = carry
            value, slope = jax.value_and_grad(cost)(learned, xs[at], targets[at])
            change, memory = optimizer.update(slope, memory, learned)
            return (eqx.apply_updates(learned, change), memory), value

        order = jax.random.permutation(key, len(xs))[: n_batches * batch_size].reshape(n_batches, batch_size)
        (learned, memory), values = jax.lax.scan(update, (learned, memory), order)
        return learned, memory, values.mean()

    memory, losses = optimizer.init(learned), []
    for k, each in enumerate(tqdm(jax.random.split(_check.key(key), epochs), disable=not progress, desc="fit")):
        learned, memory, value = epoch(learned, memory, each, xs, targets)
        losses.append(float(value))
        if not np.isfinite(losses[-1]):
            raise ValueError(
                f"the loss is {losses[-1]} in epoch {k + 1}; take a smaller step, such as optax.adam(1e-4), or clip "
                "gradients with optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))"
            )
    return eqx.combine(learned, fixed), Training(np.asarray(losses), n_batches * epochs)
