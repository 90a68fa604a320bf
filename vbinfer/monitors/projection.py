"""EEG, MEG and stereotactic EEG: gains times sources."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, did_you_mean, param
from vbinfer.monitors.base import AbstractMean, chosen, period_ms

Sources = tuple[tuple[str, float], ...]


def check_columns(matrix: Array, n: int, what: str = "gain") -> None:
    """Raise ValueError unless the matrix has `n` columns."""
    if matrix.shape[1] != n:
        raise ValueError(
            f"the {what}: {list(matrix.shape[:2])} for a simulation of {n} nodes; give one column per node"
            + ("" if what != "gain" else " (vb.monitors.region_gain sums the vertices of each region)")
        )


def contract(matrix: Array, x: Array) -> Array:
    """sum_i matrix_si x_i.

    `[S, N]`, or one for each draw `[S, N, B]`, times `[N]` or `[N, B]`.
    """
    # full precision: gains of unequal sign cancel, and tensor cores would keep ten bits
    sum_over_nodes = "snb,nb->sb" if matrix.ndim == 3 else "sn,n...->s..."
    return jnp.einsum(sum_over_nodes, matrix, x, precision=jax.lax.Precision.HIGHEST)


def _sources(var: str | Mapping[str, float] | Sources) -> Sources:
    """Names and weights of the sources, in order."""
    if isinstance(var, str):
        return ((var, 1.0),)
    pairs = var.items() if isinstance(var, Mapping) else var
    found = tuple((str(name), float(weight)) for name, weight in pairs)
    if not found:
        raise ValueError('no source was given; name a state variable, var="y1", or a sum, var={"y1": 1.0, "y2": -1.0}')
    return found


def _labels(labels: Iterable[object] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(str(label) for label in labels)


class AbstractSensors(AbstractMean):
    """Base of sensors: gains times a weighted sum of variables.

    y_s = sum_i gain_si mean_t s_i(t),   s = sum_v w_v x_v,   averaged over the period
    """

    by_node: ClassVar[bool] = False
    gain: Param = param(axes=("sensor", "node"), doc="signal of a sensor for a unit source in a node")
    var: Sources = eqx.field(static=True, converter=_sources)  # type: ignore[misc]  (param() above has no default)
    period: float | None = eqx.field(static=True, converter=period_ms)
    reference: str | None = eqx.field(static=True, default=None, kw_only=True)
    labels: tuple[str, ...] | None = eqx.field(static=True, default=None, converter=_labels, kw_only=True)

    def validate(self) -> None:
        kind = type(self).__name__
        if self.gain.ndim != 2:
            raise ValueError(f"{kind} was given a gain of shape {list(self.gain.shape)}; expected [sensor, node]")
        if self.labels is not None and len(self.labels) != self.gain.shape[0]:
            raise ValueError(f"{kind} has {len(self.labels)} labels for a gain with {self.gain.shape[0]} sensors")
        if self.reference not in (None, "average", *(self.labels or ())):
            known = did_you_mean(str(self.reference), ("average", *(self.labels or ())))
            raise ValueError(f"{kind} has no sensor {self.reference!r} to refer to. {known}")

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(tuple(name for name, _ in self.var), variables)

    def sample_shape(self, n: int) -> tuple[int, ...]:
        return (self.gain.shape[0],)

    def check_nodes(self, n: int) -> None:
        check_columns(self.gain, n)

    def source(self, x: dict[str, Array]) -> Array:
        (first, weight), *others = self.var
        return sum((w * x[name] for name, w in others), weight * x[first])

    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Array]:
        y = contract(self.gain, carry[1])
        if self.reference == "average":
            y = y - y.mean(axis=0, keepdims=True)
        elif self.reference is not None:
            # a slice, so that a batch axis stays
            row = (self.labels or ()).index(self.reference)
            y = y - y[row : row + 1]
        return self.init(x), y


class EEG(AbstractSensors):
    """Electroencephalogram: `[T, sensor]`.

    y_s = sum_i gain_si mean_t s_i(t),   s = sum_v w_v x_v;   with a reference, y_s - mean_s' y_s' or y_s - y_ref

    Args:
        gain: `[sensor, node]`, the potential at a sensor for a unit source in a region (`read_projection`,
            `region_gain`).
        var: the source: a state variable, or a weighted sum of several, `{"y1": 1.0, "y2": -1.0}` for JansenRit.
        period: ms between samples; each is the mean of the states after the steps of its period.
        reference: None keeps the reference of the gains, `"average"` subtracts the mean over sensors, a label that
            sensor.
        labels: names of the sensors.

    >>> EEG([[1.0, 0.5], [0.2, 1.0]], var={"y1": 1.0, "y2": -1.0}, period=4.0, reference="average").var
    (('y1', 1.0), ('y2', -1.0))
    """


class MEG(AbstractSensors):
    """Magnetoencephalogram: as `EEG`, without a reference.

    y_s = sum_i gain_si mean_t s_i(t),   s = sum_v w_v x_v

    Args:
        gain: `[sensor, node]`, the field at a sensor for a unit source in a region.
        var: the source, a state variable or a weighted sum of several.
        period: ms between samples; each is the mean over its period.
        labels: names of the sensors.
    """

    reference: str | None = eqx.field(static=True, default=None, init=False)


class SEEG(AbstractSensors):
    """Stereotactic EEG: contacts inside the brain, as `EEG`.

    `seeg_gain` makes gains from positions.

    y_s = sum_i gain_si mean_t s_i(t),   s = sum_v w_v x_v;   with a reference, y_s - mean_s' y_s' or y_s - y_ref

    Args:
        gain: `[contact, node]`.
        var: the source, `"x1"` or `{"x1": -1.0, "x2": 1.0}` for the Epileptor.
        period: ms between samples; each is the mean over its period.
        reference: None, `"average"` or the label of a contact.
        labels: names of the contacts.
    """
