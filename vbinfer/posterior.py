"""Posterior: draws from p(theta | x_o), whichever method made them."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vbinfer import _arviz, _check
from vbinfer._names import PRNGKey, flat_names
from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Draws from a posterior, by chain.

    Attributes:
        theta: leaves `[chain, draw, ...]` by path.
        log_prob: `[chain, draw]`, log posterior density over theta; normalised for neural posteriors, unnormalised
            (prior plus likelihood) for Monte-Carlo ones; None if unknown.
        sample_stats: what the sampler says of each draw, `[chain, draw]`: `diverging`, `energy`, ...
        x_o: the observation.
        prior: the prior, for shrinkage and for reports.
        log_evidence: log p(x_o) where the method estimates it.
        info: provenance: method, seconds, key, versions; what the method says of itself.
        state: arrays from which `sample_mcmc(init=posterior, num_warmup=0)` goes on; None if the method has no chains.

    Raises:
        ValueError: leaves that do not share `[chain, draw]`, or a prior over other parameters.

    Example:
        >>> import numpy as np
        >>> posterior = Posterior({"coupling.G": np.linspace(0.0, 1.0, 101)[None]})
        >>> posterior.names, posterior.ravel().shape
        (('coupling.G',), (101, 1))
    """

    theta: Mapping[str, Any]  # array-likes are taken; after construction all of these hold NumPy arrays
    log_prob: Any = None
    sample_stats: Mapping[str, Any] | None = None
    x_o: Any = None
    prior: Prior | None = None
    log_evidence: float | None = None
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        theta = {str(name): np.asarray(value) for name, value in self.theta.items()}
        if not theta:
            raise ValueError('theta is empty; expected {"path": array of [chain, draw, ...], ...}')
        lead = next(iter(theta.values())).shape[:2]
        if 0 in lead:
            raise ValueError(f"theta holds no draws: its first leaf is {list(lead)}; expected [chain, draw, ...]")
        if self.prior is not None:
            _check_prior(theta, self.prior)
            theta = {name: theta[name] for name in self.prior.shapes}
        stats = {str(name): np.asarray(value) for name, value in (self.sample_stats or {}).items()}
        given = {f"theta[{name!r}]": value for name, value in theta.items()}
        given |= {f"sample_stats[{name!r}]": value for name, value in stats.items()}
        if self.log_prob is not None:
            given["log_prob"] = np.asarray(self.log_prob)
        for name, value in given.items():
            if value.ndim < 2:
                raise ValueError(
                    f"{name} has shape {list(value.shape)}; expected [chain, draw, ...]: write x[None] for one chain"
                )
            if value.shape[:2] != lead:
                raise ValueError(
                    f"{name} is {list(value.shape)}, but the first leaf of theta is [{lead[0]}, {lead[1]}, ...]"
                )
        object.__setattr__(self, "theta", theta)
        object.__setattr__(self, "log_prob", given.get("log_prob"))
        object.__setattr__(self, "sample_stats", None if self.sample_stats is None else stats)
        object.__setattr__(self, "x_o", None if self.x_o is None else np.asarray(self.x_o))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one draw of each leaf."""
        return {name: value.shape[2:] for name, value in self.theta.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Flattened names, `("coupling.G", "model.eta[0]", ...)`."""
        return flat_names(self.shapes)

    @property
    def num_chains(self) -> int:
        """Number of chains.

        It is 1 for draws that are independent by construction.
        """
        return next(iter(self.theta.values())).shape[0]

    @property
    def num_samples(self) -> int:
        """Draws per chain."""
        return next(iter(self.theta.values())).shape[1]

    def ravel(self) -> np.ndarray:
        """All draws as one matrix.

        It is `[chain * draw, D]`, with the columns of `names`.
        """
        rows = self.num_chains * self.num_samples
        return np.concatenate([value.reshape(rows, -1) for value in self.theta.values()], axis=1)

    def summary(self, hdi_prob: float = 0.94) -> "SummaryTable":
        """Table of mean, sd, HDI, shrinkage, R-hat and ESS.

        Shrinkage is `1 - var_posterior / var_prior` (there with a prior); R-hat and the smaller of bulk and tail
        ESS are there with several chains.

        Args:
            hdi_prob: probability of the interval, the shortest one that holds it.

        Returns:
            Rows, one per flattened name; `str()` prints them aligned, `table["coupling.G"]` is one of them.
        """
        _check.fraction(hdi_prob, "hdi_prob", 0.94)
        flat = self.ravel().astype(float)
        mean, sd, interval = flat.mean(0), np.full(flat.shape[1], np.nan), hdi(flat, hdi_prob)
        if len(flat) > 1:  # of one draw there is no spread
            sd = flat.std(0, ddof=1)
        blank = [None] * len(self.names)
        shrinkage, rhat, ess = blank, blank, blank
        if self.prior is not None:
            # of the prior's own variance, in closed form where there is one: draws of it would add their noise
            learned = variance_shrinkage(_flat(self.prior.variance(), self), sd**2)
            shrinkage = [float(share) if np.isfinite(share) else None for share in learned]
        if self.num_chains > 1:
            rhat = _flat(_arviz.rhat(self.theta), self).tolist()
            ess = np.minimum(*(_flat(_arviz.ess(self.theta, kind), self) for kind in ("bulk", "tail"))).tolist()
        columns = (self.names, mean.tolist(), sd.tolist(), *interval.tolist(), shrinkage, rhat, ess)
        return SummaryTable(tuple(SummaryRow(*row) for row in zip(*columns, strict=True)), hdi_prob)

    def to_inference_data(self, *, key: PRNGKey | None = None, num_prior: int = 1_000) -> Any:
        """This posterior for ArviZ.

        Groups posterior, sample_stats, observed_data, and prior if `key` is given.

        Args:
            key: draws the prior group; without it, or without a prior, there is none.
            num_prior: draws in the prior group.

        Returns:
            `arviz.InferenceData`, or an `xarray.DataTree` where ArviZ 1.x is installed. Sampler statistics carry the
            names that ArviZ looks for (`acceptance_rate`, `n_steps`, `lp`).
        """
        num_prior = _check.count(num_prior, "num_prior")
        attrs = {"inference_library": "vbinfer"}
        attrs |= {f"{name}_version": version for name, version in npz.versions().items()}
        groups = {"posterior": _arviz.dataset(self.theta, attrs=attrs)}
        stats = dict(self.sample_stats or {})
        if self.log_prob is not None:
            stats["log_prob"] = self.log_prob
        if stats:
            groups["sample_stats"] = _arviz.dataset(_arviz.sample_stats(stats))
        if self.prior is not None and key is not None:
            theta = self.prior.sample(key=key, n=num_prior)
            groups["prior"] = _arviz.dataset({name: np.asarray(value)[None] for name, value in theta.items()})
        if self.x_o is not None:
            groups["observed_data"] = _arviz.dataset({"x": self.x_o}, lead=())
        return _arviz.inference_data(groups)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz`, which `vb.load(path)` reads exactly."""
        arrays = {f"theta/{name}": value for name, value in self.theta.items()}
        arrays |= {f"sample_stats/{name}": value for name, value in (self.sample_stats or {}).items()}
        arrays |= {} if self.log_prob is None else {"log_prob": self.log_prob}
        arrays |= {} if self.x_o is None else {"x_o": self.x_o}
        arrays |= {f"state/{name}": value for name, value in (self.state or {}).items()}
        # long notes, such as weights, lie beside the header
        long = {name: value for name, value in self.info.items() if isinstance(value, np.ndarray)}
        arrays |= {f"info/{name}": value for name, value in long.items()}
        header = {
            "theta": list(self.theta),
            "sample_stats": None if self.sample_stats is None else list(self.sample_stats),
            "prior": None if self.prior is None else self.prior.to_spec(),
            "log_evidence": None if self.log_evidence is None else float(self.log_evidence),
            "info": {name: value for name, value in self.info.items() if name not in long},
        }
        npz.write(path, "posterior", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Posterior":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        names, stats = header["theta"], header["sample_stats"]
        return cls(
            theta={name: arrays[f"theta/{name}"] for name in names},
            log_prob=arrays.get("log_prob"),
            sample_stats=None if stats is None else {name: arrays[f"sample_stats/{name}"] for name in stats},
            x_o=arrays.get("x_o"),
            prior=None if header["prior"] is None else Prior.from_spec(header["prior"]),
            log_evidence=header["log_evidence"],
            info=dict(header["info"]) | _under("info/", arrays),
            state=_under("state/", arrays) or None,
        )


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def provenance(method: str, key: PRNGKey | None, began: float, *packages: str) -> dict[str, Any]:
    """Who made a posterior: method, seconds since `began`, key, versions."""
    info = {"method": method, "seconds": time.perf_counter() - began, "versions": npz.versions(*packages)}
    return info if key is None else info | {"key": key_ints(key)}


class SummaryRow(NamedTuple):
    """One parameter of a posterior.

    None where there is nothing to compare with: no prior, one chain.
    """

    name: str
    mean: float
    sd: float
    hdi_low: float
    hdi_high: float
    shrinkage: float | None
    rhat: float | None
    ess: float | None


@dataclasses.dataclass(frozen=True)
class SummaryTable:
    """Rows of `Posterior.summary()`: iterate, index by name, print."""

    rows: tuple[SummaryRow, ...]
    hdi_prob: float

    def __iter__(self) -> Iterator[SummaryRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> SummaryRow:
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise KeyError(f"the table has no row {name!r}; its rows are {', '.join(found)}")
        return found[name]

    def __str__(self) -> str:
        percent = f"{100 * self.hdi_prob:g}%"
        head = ("", "mean", "sd", f"hdi {percent} low", "high", "shrinkage", "rhat", "ess")
        body = [head] + [
            (row.name, *("-" if value is None else f"{value:.4g}" for value in row[1:])) for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*body, strict=True)]
        lines = []
        for first, *rest in body:
            cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]))
        return "\n".join(lines)


def variance_shrinkage(prior: Any, posterior: Any) -> np.ndarray:
    """Shrinkage of variances, `1 - var_posterior / var_prior`.

    The one definition in the package; `vb.diagnostics.shrinkage` and the reports call it. 0 is the prior, 1 a point,
    below 0 the posterior is wider than the prior. NaN where the prior has no finite variance, or no width.

    Args:
        prior: prior variances `[...]`.
        posterior: posterior variances, of a shape that broadcasts against them.

    >>> variance_shrinkage([4.0, np.inf], [1.0, 1.0]).tolist()
    [0.75, nan]
    """
    before, after = np.asarray(prior, float), np.asarray(posterior, float)
    known = np.isfinite(before) & (before > 0.0)
    return np.where(known, 1.0 - after / np.where(known, before, 1.0), np.nan)


def hdi(flat: np.ndarray, prob: float) -> np.ndarray:
    """Shortest intervals that hold `prob` of the draws.

    Ends `[2, D]` of draws `[n, D]`, for unimodal marginals.

    >>> hdi(np.arange(101.0)[:, None] ** 2, 0.5).ravel().tolist()
    [0.0, 2500.0]
    """
    ordered = np.sort(flat, axis=0)
    inside = min(int(np.floor(prob * len(ordered))), len(ordered) - 1)
    # every interval that holds so many neighbouring draws; the shortest one wins
    widths = ordered[inside:] - ordered[: len(ordered) - inside]
    start = np.argmin(widths, axis=0)
    columns = np.arange(flat.shape[1])
    return np.stack([ordered[start, columns], ordered[start + inside, columns]])


def _flat(leaves: Mapping[str, Any], posterior: Posterior) -> np.ndarray:
    return np.concatenate([np.asarray(leaves[name], float).reshape(-1) for name in posterior.theta])


def _check_prior(theta: Mapping[str, np.ndarray], prior: Prior) -> None:
    if set(theta) != set(prior.shapes):
        raise ValueError(
            f"theta has {', '.join(sorted(theta))} but the prior has {', '.join(sorted(prior.shapes))}; "
            f"give the prior of these parameters, or prior=None"
        )
    for name, shape in prior.shapes.items():
        if theta[name].ndim >= 2 and theta[name].shape[2:] != tuple(shape):
            wanted = ", ".join(["chain", "draw", *map(str, shape)])
            raise ValueError(f"theta[{name!r}] is {list(theta[name].shape)}; this prior makes it [{wanted}]")
