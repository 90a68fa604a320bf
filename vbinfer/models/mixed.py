"""Several models in one network."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import NAMED, did_you_mean
from vbinfer.models.base import AbstractVectorField, couples, state_class


class Mixed(AbstractVectorField):
    """Groups of nodes with a model each.

    Cortex and thalamus, an epileptogenic zone and the rest.

    State variables are `<group>_<variable>`, of as many values as the group has nodes, in the order of the nodes; noise
    and `init` name them so. Every node sends one number, the variable that `sends` names for its group, seen as "sent"
    `[N]` by coupling, monitors and sensors. Every group sees the coupling input and the stimulus of its nodes. Rows of
    coupling that a model reads and nobody sends are zero (that of x2 in an `Epileptor`). Parameters are
    `model.<group>.<name>`, a number or one per node of the group.

    Args:
        groups: name to model. Models that bring their own step cannot be mixed.
        where: the group of every node.
        sends: group to the variable that its nodes send.

    Raises:
        ValueError: a group without nodes or without `sends`, a name that is no group, a variable that the model lacks.
        TypeError: a group that is no model with a drift.

    >>> import vbinfer as vb
    >>> groups = {"cortex": vb.models.MontbrioPazoRoxin(), "thalamus": vb.models.WilsonCowan()}
    >>> where = ["cortex", "thalamus", "cortex"]
    >>> model = vb.models.Mixed(groups, where=where, sends={"cortex": "r", "thalamus": "E"})
    >>> model.shapes(3)
    {'cortex_r': (2,), 'cortex_V': (2,), 'thalamus_E': (1,), 'thalamus_I': (1,)}
    """

    groups: dict[str, AbstractVectorField] = eqx.field(metadata=NAMED)
    nodes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    """Groups in order, with their nodes: JAX gives mappings back sorted by key."""
    sends: tuple[str, ...] = eqx.field(static=True)
    cvar: tuple[str, ...] = couples("sent")

    def __init__(self, groups: Mapping[str, AbstractVectorField], *, where: Sequence[str], sends: Mapping[str, str]):
        if not isinstance(groups, Mapping) or not groups:
            raise TypeError(f'Mixed was given {groups!r}; expected models by group, {{"cortex": MontbrioPazoRoxin()}}')
        for what, given in (("where", where), ("sends", sends)):
            for name in given:
                if name not in groups:
                    raise ValueError(f"{what} names {name!r}, which is no group. {did_you_mean(str(name), groups)}")
        of = {group: tuple(i for i, name in enumerate(where) if name == group) for group in groups}
        for group, model in groups.items():
            _check_group(group, model, len(of[group]), sends.get(group))
        self.groups, self.nodes, self.sends = dict(groups), tuple(of.items()), tuple(sends[group] for group in groups)
        self.cvar = ("sent",)

    @property
    def n_nodes(self) -> int:
        return sum(len(nodes) for _, nodes in self.nodes)

    @property
    def rows(self) -> int | None:
        rows: list[Any] = [model.rows for model in self.groups.values()]
        return None if None in rows else max(rows)

    @property
    def State(self) -> Any:
        return state_class(tuple(f"{group}_{v}" for group, _ in self.nodes for v in self.groups[group].variables()))

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        shapes = (shape for group, nodes in self.nodes for shape in self.groups[group].shapes(len(nodes)).values())
        return dict(zip(self.variables(), shapes, strict=True))

    def leaf_size(self, path: str, n: int) -> int:
        group, _, rest = path.partition(".")
        return self.groups[group].leaf_size(rest, len(dict(self.nodes)[group]))

    def init(self, n: int) -> Any:
        return self.State(*(leaf for group, nodes in self.nodes for leaf in self.groups[group].init(len(nodes))))

    def _parts(self, x: Any) -> Iterator[tuple[AbstractVectorField, Any, np.ndarray]]:
        """Model, state and nodes of every group."""
        leaves = iter(x)
        for group, nodes in self.nodes:
            model: Any = self.groups[group]
            yield model, model.State(*itertools.islice(leaves, len(model.variables()))), np.array(nodes)

    def at_nodes(self, x: Any) -> dict[str, Array]:
        parts = zip(self._parts(x), self.sends, strict=True)
        sent = [model.at_nodes(state)[name] for (model, state, _), name in parts]
        # group after group, then back to the order of the nodes
        order = np.argsort(np.concatenate([nodes for _, nodes in self.nodes]))
        return {"sent": jnp.concatenate(sent)[order]}

    def dfun(self, t: Array, x: Any, c: Array, u: Array) -> Any:
        u = jnp.broadcast_to(u, c.shape[1:])

        def drift(model: AbstractVectorField, state: Any, nodes: np.ndarray) -> Any:
            reads = len(model.cvar) if model.rows is None else min(model.rows, len(model.cvar))
            lacking = max(reads - len(c), 0)
            rows = jnp.pad(c[:, nodes], [(0, lacking), *[(0, 0)] * (c.ndim - 1)])
            return model.dfun(t, state, rows, u[nodes])

        return self.State(*(leaf for part in self._parts(x) for leaf in drift(*part)))

    def project(self, x: Any) -> Any:
        return self.State(*(leaf for model, state, _ in self._parts(x) for leaf in model.project(state)))


def _check_group(name: Any, model: Any, n: int, sent: str | None) -> None:
    """Raise unless a group can stand in a network."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"a group was named {name!r}; expected a name of letters and digits, such as 'cortex'")
    if not isinstance(model, AbstractVectorField):
        given = f"{type(model).__name__}, which brings its own step" if hasattr(model, "step") else f"{model!r}"
        raise TypeError(f"group {name!r} is {given}; Mixed takes models with a drift, such as WilsonCowan()")
    if n == 0:
        raise ValueError(f"group {name!r} has no node; name it in where=, or leave it out")
    shown = tuple(jax.eval_shape(lambda: model.at_nodes(model.init(n))))
    if sent is None:
        raise ValueError(f"group {name!r} sends nothing; name one of its variables, sends={{{name!r}: {shown[0]!r}}}")
    if sent not in shown:
        raise ValueError(f"group {name!r} sends {sent!r}, no variable of its model. {did_you_mean(sent, shown)}")
