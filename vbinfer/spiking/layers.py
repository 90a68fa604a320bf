"""Layers of neurons that learn, and networks of them.

Sequences are `[T, ...batch, features]`. What a layer is given is weighted for all steps at once, one matrix product;
the loop over time is that of the neurons, with recurrent spikes of the step before.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._check import positive
from vbinfer._param import paths, replace
from vbinfer.spiking.base import AbstractNeuron
from vbinfer.spiking.synapses import AbstractSynapse, Linear


class LayerState(NamedTuple):
    """What a layer remembers between steps."""

    neuron: Any
    past: Any
    """Inputs that are still to arrive."""


class Layer(eqx.Module):
    """Synapse and neurons, with or without recurrence.

    c_t = synapse(x_t) + recurrent(z_t-1);   state, z_t = neuron.cell(state, c_t)

    The recursions are in the docstrings of the neurons: decay, threshold (z = v > v_th, strictly), reset, which is
    differentiated. Layers know no refractory period. Gives z; v of an `LI`. Parameters of the neuron that `learn` does
    not name are constants to derivatives.

    Args:
        synapse: `Linear` or `Conv`. The number of neurons is what it gives.
        neuron: any neuron of `vb.spiking`.
        recurrent: a synapse from the neurons to themselves.
    """

    synapse: AbstractSynapse
    neuron: AbstractNeuron
    recurrent: AbstractSynapse | None = None

    def __check_init__(self) -> None:
        for name, kind, example in (
            ("synapse", AbstractSynapse, "Linear(8, 64, key=key)"),
            ("neuron", AbstractNeuron, "vb.spiking.LIF()"),
            ("recurrent", AbstractSynapse | None, "Linear(64, 64, key=key), or None"),
        ):
            given = getattr(self, name)
            if not isinstance(given, kind):
                raise TypeError(f"{name} was given as {type(given).__name__}; expected {example}")
        if isinstance(self.recurrent, Linear) and isinstance(self.synapse, Linear):
            n, shape = len(self.synapse.weight), self.recurrent.weight.shape
            if shape != (n, n):
                raise ValueError(
                    f"recurrent is {list(shape)} in a layer of {n} neurons; write Linear({n}, {n}, key=key)"
                )

    def start(self, xs: Array) -> LayerState:
        """The state before the first of the steps `xs`."""
        shape = jax.eval_shape(lambda xs: self.synapse(xs)[0], xs).shape[1:]
        return LayerState(_rest(self._cell(), shape), self.synapse.past(xs))

    def _cell(self) -> AbstractNeuron:
        """The neuron, parameters by channel beside rows and columns.

        Those that are not learned are constants.
        """
        by_channel = self.synapse.weight.ndim >= 4
        leaves = {}
        for path, leaf in paths(self.neuron).items():
            value = leaf.value if path in self.neuron.learn else jax.lax.stop_gradient(leaf.value)
            leaves[path] = value[:, None, None] if by_channel and value.ndim == 1 else value
        return replace(self.neuron, leaves)

    def __call__(
        self, xs: Any, state: LayerState | None = None, *, dt: float = 1.0, checkpoint: bool = False, cut: bool = False
    ) -> tuple[Array, LayerState]:
        """Outputs `[T, ...]`, and the state at the end.

        Args:
            xs: `[T, ...batch, features]`.
            state: of an earlier call, to go on from; None is rest.
            dt: ms of a step.
            checkpoint: keep the state at sqrt(T) steps only for the backward pass.
            cut: hold constant what recurrence carries.
        """
        xs = jnp.asarray(xs, jnp.result_type(float))
        begin = jax.eval_shape(self.start, xs) if state is not None else None
        if state is not None and jax.tree.map(jnp.shape, state) != jax.tree.map(lambda a: a.shape, begin):
            raise ValueError(
                f"the state has shapes {_shapes(state)}; this layer and input need {_shapes(begin)}: give the state "
                "that this network returned, or None"
            )
        begin = self.start(xs) if state is None else state
        c, past = self.synapse(xs, begin.past)
        cell = self._cell()

        def step(x: Any, c: Array) -> tuple[Any, Array]:
            if self.recurrent is not None:
                z = jax.lax.stop_gradient(x.z) if cut else x.z
                c = c + self.recurrent(z[None])[0][0]
            x = cell.cell(x, c, dt)
            return x, x.v if cell.bounds[1] == "" else x.z

        end, ys = _unroll(step, begin.neuron, c, checkpoint)
        return ys, LayerState(end, past)


def _rest(cell: AbstractNeuron, shape: tuple[int, ...]) -> Any:
    """The neurons at rest, without what only simulations know."""
    return cell.start_of(shape)._replace(since=None)


def _shapes(state: Any) -> str:
    return ", ".join(str(list(jnp.shape(leaf))) for leaf in jax.tree.leaves(state))


def _unroll(step: Callable[[Any, Array], tuple[Any, Array]], x: Any, cs: Array, checkpoint: bool) -> tuple[Any, Array]:
    """Scan over steps in segments whose starts are kept."""
    n = len(cs)
    size = math.isqrt(n) if checkpoint else 1
    if size < 2:
        return jax.lax.scan(step, x, cs)
    segments = n // size
    segment = jax.checkpoint(lambda x, cs: jax.lax.scan(step, x, cs), prevent_cse=False)
    x, ys = jax.lax.scan(segment, x, cs[: segments * size].reshape(segments, size, *cs.shape[1:]))
    x, last = jax.lax.scan(step, x, cs[segments * size :])
    return x, jnp.concatenate([ys.reshape(-1, *ys.shape[2:]), last])


class Network(eqx.Module):
    """Layers one after the other.

    `net(xs)` gives outputs `[T, ...]` of the last layer and the state, from which `net(more, state)` goes on: the same
    numbers as one call with all steps.

    Args:
        layers: `Layer`s; functions of a sequence may stand between them, to flatten images for example.
        dt: ms of a step.

    >>> import jax, jax.numpy as jnp
    >>> from vbinfer.spiking import LI, LIF, Layer, Linear, Network
    >>> keys = jax.random.split(jax.random.key(0))
    >>> net = Network([Layer(Linear(3, 20, key=keys[0]), LIF()), Layer(Linear(20, 2, key=keys[1]), LI())])
    >>> ys, state = net(jnp.ones((50, 3)))
    >>> ys.shape
    (50, 2)
    """

    layers: tuple[Any, ...]
    dt: float = eqx.field(static=True)

    def __init__(self, layers: Iterable[Any], *, dt: float = 1.0):
        self.layers, self.dt = tuple(layers), positive(dt, "dt", 1.0, "ms")
        for layer in self.layers:
            if not callable(layer):
                raise TypeError(f"layers holds {layer!r}; expected Layer(synapse, neuron), or a function of a sequence")

    def start(self, xs: Array) -> tuple[Any, ...]:
        """The state of every layer at rest."""
        return self._each(lambda layer, xs, _: (layer(xs, dt=self.dt)[0], layer.start(xs)), xs, None)[1]

    def _each(self, call: Callable[..., Any], xs: Array, state: Any) -> tuple[Array, tuple[Any, ...]]:
        ends = []
        for k, layer in enumerate(self.layers):
            if isinstance(layer, Layer):
                xs, end = call(layer, xs, None if state is None else state[k])
            else:
                xs, end = layer(xs), None
            ends.append(end)
        return xs, tuple(ends)

    def __call__(
        self, xs: Any, state: Any = None, *, checkpoint: bool = False, cut: bool = False
    ) -> tuple[Array, tuple[Any, ...]]:
        """Outputs, and the state at the end; see `Layer`."""
        if state is not None and (not isinstance(state, tuple) or len(state) != len(self.layers)):
            raise ValueError(
                f"the state is of another network: it has {len(state) if isinstance(state, tuple) else 'no'} layers, "
                f"this network {len(self.layers)}; give the state that this network returned, or None"
            )
        run = lambda layer, xs, state: layer(xs, state, dt=self.dt, checkpoint=checkpoint, cut=cut)  # noqa: E731
        return self._each(run, xs, state)

    def embed(self, x: Array) -> Array:
        """Mean output of a sequence as one vector.

        The vector is `[T * features]`.

        What `vb.NPE(embedding=net)` calls.
        """
        return self(x.reshape(-1, self.layers[0].synapse.weight.shape[1]))[0].mean(axis=0)


class Stateful:
    """A network that keeps its state between calls.

    `Stateful(net)(xs)` gives the outputs alone, the same numbers as `net(xs, state)`; `reset()` brings it to rest.
    """

    def __init__(self, net: Network):
        self.net, self.state = net, None

    def __call__(self, xs: Any) -> Array:
        ys, self.state = self.net(xs, self.state)
        return ys

    def reset(self) -> None:
        """Forget everything."""
        self.state = None


def trainable(net: Any) -> Any:
    """Which leaves training changes: weights, and what `learn` names."""

    def of(node: Any) -> Any:
        if not isinstance(node, AbstractNeuron):
            return eqx.is_inexact_array(node)
        none = jax.tree.map(lambda _: False, node)
        marks: Any = dict.fromkeys(node.learn, True)
        return replace(none, marks)

    return jax.tree.map(of, net, is_leaf=lambda node: isinstance(node, AbstractNeuron))
