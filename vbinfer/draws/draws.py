"""Pairs of parameters and simulated summaries."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer import _check
from vbinfer._names import flat_names
from vbinfer.io import npz
from vbinfer.priors.prior import Prior


class FailureRow(NamedTuple):
    """Failed draws in one region of the prior.

    The region is `low <= parameter < high`.
    """

    parameter: str
    low: float
    high: float
    n: int
    failed: int
    share: float
    """failed / n; NaN where the region holds no draw."""


@dataclasses.dataclass(frozen=True)
class Draws:
    """Draws of parameters and their simulated summaries.

    Attributes:
        theta: leaves `[n, ...]` by path.
        x: summaries `[n, F]`; a failed draw keeps its row.
        names: names of the F summaries, `("fc.mean", ...)`.
        valid: `[n]`, False where the draw failed (NaN or infinite numbers).
        round: `[n]`, the round of a sequential method that made the draw; 0 is the prior.
        log_q: `[n]`, log density of the proposal at theta, up to a constant per round where the proposal has no other;
            None when theta came from the prior, NaN in the rows that did where others came from a proposal.
        info: provenance: seconds, draws_per_second, key, versions, simulator, batch_size.

    Example:
        >>> import numpy as np
        >>> draws = Draws.from_arrays({"g": np.array([0.1, 0.2])}, np.array([[1.0], [np.nan]]), names=("fc.mean",))
        >>> len(draws), draws.valid.tolist()
        (2, [True, False])
    """

    theta: dict[str, np.ndarray]
    x: np.ndarray
    names: tuple[str, ...]
    valid: np.ndarray
    round: np.ndarray
    log_q: np.ndarray | None = None
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("x", "valid", "round", "log_q"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else np.asarray(value))
        object.__setattr__(self, "theta", {str(name): np.asarray(value) for name, value in self.theta.items()})
        if self.x.ndim != 2:
            raise ValueError(
                f"x has shape {list(self.x.shape)}; expected [draw, feature], as x[:, None] for one feature"
            )
        n, width = self.x.shape
        if not self.theta:
            raise ValueError('theta is empty; expected {"path": array of [draw, ...], ...}')
        columns = {f"theta[{name!r}]": value for name, value in self.theta.items()}
        columns |= {"valid": self.valid, "round": self.round}
        if self.log_q is not None:
            columns["log_q"] = self.log_q
        for name, value in columns.items():
            if value.ndim == 0 or len(value) != n:
                raise ValueError(f"{name} has shape {list(value.shape)} but x is [{n}, {width}]; expected [{n}, ...]")
        if len(self.names) != width:
            raise ValueError(f"{len(self.names)} names were given for the {width} features of x; give one per column")

    @classmethod
    def from_arrays(
        cls,
        theta: Mapping[str, Any],
        x: Any,
        names: tuple[str, ...] | list[str] | None = None,
        valid: Any = None,
    ) -> "Draws":
        """Draws made elsewhere.

        Args:
            theta: path to array `[n, ...]`.
            x: summaries `[n, F]`.
            names: one per feature; `x[0], x[1], ...` by default.
            valid: `[n]` booleans; rows with NaN or infinite numbers are invalid whatever it says.

        Raises:
            ValueError: lengths that do not agree.
        """
        x = np.asarray(x)
        if not x.size and (x.ndim == 0 or not len(x)):
            raise ValueError(f"x has shape {list(x.shape)}: no draws; expected [n, feature] with a row for each")
        names = flat_names({"x": x.shape[1:]}) if names is None else names
        ok = np.ones(x.shape[:1], bool) if valid is None else np.asarray(valid, bool)
        draws = cls(dict(theta), x, tuple(names), ok, np.zeros(x.shape[:1], np.int32))  # which compares the shapes
        finite = [finite_rows(value) for value in (draws.x, *draws.theta.values())]
        return dataclasses.replace(draws, valid=np.logical_and.reduce([ok, *finite]))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one draw of each leaf of theta."""
        return {name: value.shape[1:] for name, value in self.theta.items()}

    def usable(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`(theta, x)` of the valid draws."""
        return {name: value[self.valid] for name, value in self.theta.items()}, self.x[self.valid]

    @classmethod
    def concatenate(cls, parts: Sequence["Draws"]) -> "Draws":
        """Join draws in order.

        `first + second` does the same for two.
        Rounds are kept as they are. `info` holds the summed `seconds`, `simulated` and `read` where every part has
        them, and the notes of each under `parts`.

        Raises:
            ValueError: no part, or parts over other parameters or other features.
        """
        if not parts:
            raise ValueError("concatenate was given no draws; expected a list, such as [draws, more]")
        first = parts[0]
        for number, part in enumerate(parts):
            if part.shapes != first.shapes:
                raise ValueError(
                    f"part {number} has theta {part.shapes}, the first has {first.shapes}; join draws of one prior"
                )
            if part.names != first.names:
                raise ValueError(
                    f"part {number} has the features {_listed(part.names)}, the first has {_listed(first.names)}; "
                    "join draws of one Summary"
                )
        theta = {name: np.concatenate([part.theta[name] for part in parts]) for name in first.theta}
        x, valid, number = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "valid", "round"))
        log_q = None
        if any(part.log_q is not None for part in parts):
            # NaN, not the density of the prior: only the caller knows which constant a round has
            known = [np.full(len(part), np.nan) if part.log_q is None else part.log_q for part in parts]
            log_q = np.concatenate(known)
        totals = {
            name: sum(part.info[name] for part in parts)
            for name in ("seconds", "simulated", "read")
            if all(name in part.info for part in parts)
        }
        return cls(theta, x, first.names, valid, number, log_q, {**totals, "parts": [part.info for part in parts]})

    def __add__(self, other: "Draws") -> "Draws":
        return Draws.concatenate([self, other]) if isinstance(other, Draws) else NotImplemented

    def failures(self, prior: Prior, bins: int = 10) -> list[FailureRow]:
        """Count failed draws by region of the prior.

        A posterior is conditional on "the simulation did not fail".
        A scalar parameter is cut at the prior's own quantiles (equal prior mass per region), the elements of an array
        at the quantiles of the draws.

        Args:
            prior: the prior of the draws.
            bins: regions per parameter.

        Returns:
            One row per parameter and region: `(parameter, low, high, n, failed, share)`.
        """
        _check.count(bins, "bins", 10)
        for name, shape in prior.shapes.items():
            if self.shapes.get(name) != shape:
                have = f"are {list(self.theta[name].shape)}" if name in self.theta else "are missing"
                raise ValueError(
                    f"the draws of {name!r} {have}, the prior's [{', '.join(map(str, ('n', *shape)))}]; "
                    "give the prior they came from"
                )
        return _failures(self, prior, bins)

    def to_xarray(self) -> Any:
        """Convert to an `xarray.Dataset`.

        Theta by path, `x`, `valid`, `round` and `log_q` lie along `draw`; failed draws are kept.
        The axes of a leaf are `<path>_dim_0`, ...; the features of `x` are labelled by name; `attrs` hold `info` as
        JSON. A parameter that is called like a part of the draws (`x`) becomes `theta.x`. `vb.stores.export` writes
        files.

        Example:
            >>> draws = Draws.from_arrays({"g": np.array([0.1, 0.2])}, np.ones((2, 1)), names=("fc.mean",))
            >>> float(draws.to_xarray()["x"].sel(feature="fc.mean").mean())
            1.0
        """
        from vbinfer.draws.table import dataset

        return dataset(self)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz`; `vb.load(path)` reads it back exactly."""
        arrays = {f"theta/{name}": value for name, value in self.theta.items()}
        arrays |= {"x": self.x, "valid": self.valid, "round": self.round}
        if self.log_q is not None:
            arrays["log_q"] = self.log_q
        header = {"theta": list(self.theta), "names": list(self.names), "info": self.info}
        npz.write(path, "draws", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Draws":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        theta = {name: arrays[f"theta/{name}"] for name in header["theta"]}
        fixed = (arrays["x"], tuple(header["names"]), arrays["valid"], arrays["round"])
        return cls(theta, *fixed, arrays.get("log_q"), dict(header["info"]))


def finite_rows(value: np.ndarray) -> np.ndarray:
    """`[n]`: whether every number of the row is finite."""
    return np.asarray(np.isfinite(value).reshape(len(value), -1).all(axis=1))


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _failures(draws: Draws, prior: Prior, bins: int) -> list[FailureRow]:
    """Rows of `Draws.failures`."""
    # z is standard normal, so that its quantiles map to the prior's: regions of equal prior mass. All leaves at once,
    # since a leaf may depend on others; a decreasing map turns the order round, hence the sort below.
    normal = jax.scipy.special.ndtri(jnp.arange(1, bins) / bins)
    z = {
        name: jnp.broadcast_to(normal.reshape((-1,) + (1,) * len(shape)), (bins - 1, *shape))
        for name, shape in prior.z_shapes.items()
    }
    quantiles = jax.vmap(lambda one: prior.constrain(one)[0])(z)
    rows: list[FailureRow] = []
    for name, shape in prior.shapes.items():
        support: Any = prior.dists[name].support
        columns = draws.theta[name].reshape(len(draws), -1).astype(float)
        for label, column in zip(flat_names({name: shape}), columns.T, strict=True):
            if shape == ():
                ends = getattr(support, "lower_bound", -np.inf), getattr(support, "upper_bound", np.inf)
                inner = np.sort(np.asarray(quantiles[name], float))
            else:  # elements of an array have no quantiles of their own in the prior: those of the draws instead
                ends, inner = (column.min(), column.max()), np.quantile(column, np.arange(1, bins) / bins)
            # inner edges only: what lies on or beyond an end belongs to the region next to it
            region = np.searchsorted(inner, column, side="right")
            edges = [float(edge) for edge in (ends[0], *inner, ends[1])]
            for i, (low, high) in enumerate(itertools.pairwise(edges)):
                n, failed = int(np.sum(region == i)), int(np.sum((region == i) & ~draws.valid))
                rows.append(FailureRow(label, low, high, n, failed, failed / n if n else float("nan")))
    return rows
