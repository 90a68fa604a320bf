"""What networks of sbi see of x and z."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.neural.scaler import FeatureScaler, Standardise
from vbinfer.priors.prior import Prior

_MOST_CATEGORIES = 20


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs h of x: standardised features, then category codes.

    Attributes:
        scaler: names of all F features and their standardisation.
        continuous: numbers of the features that enter standardised.
        discrete: numbers of the features that enter as category codes 0, 1, ....
        categories: the values of each discrete feature in the training draws, ascending.
    """

    scaler: FeatureScaler
    continuous: tuple[int, ...]
    discrete: tuple[int, ...] = ()
    categories: tuple[tuple[float, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features."""
        return self.scaler.names

    @property
    def width(self) -> int:
        """Number H of columns that the network sees."""
        return len(self.continuous) + len(self.discrete)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """h `[..., H]` in float32."""
        h = np.asarray(self.scaler.standardise(np.asarray(x)), np.float32)[..., list(self.continuous)]
        # order of columns: continuous, then codes, as sbi's mixed networks want it
        codes = [self._codes(x[..., i], i, known) for i, known in zip(self.discrete, self.categories, strict=True)]
        return np.concatenate([h, *(code[..., None] for code in codes)], axis=-1, dtype=np.float32)

    def log_det(self, x: np.ndarray) -> np.ndarray:
        """log |d h / d x| over the continuous features."""
        slopes = self.scaler.standardise.log_slope(jnp.asarray(x, jnp.result_type(float)))
        return np.asarray(slopes)[..., list(self.continuous)].sum(-1)

    def observe(self, x_o: Any, trials: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
        """Check x_o; name, with a warning, features outside training.

        With `trials`, x_o may be `[T, F]`; one warning covers all rows.
        """
        if not (trials and np.ndim(x_o) == 2):
            return self.scaler.observe(x_o)
        rows = self.scaler.check(x_o, ndim=2)
        far = self.scaler.standardise.outside(rows)
        strange = np.where(far.any(0), rows[far.argmax(0), np.arange(rows.shape[1])], rows[0])
        return rows, self.scaler.observe(strange)[1]

    def to_header(self) -> dict[str, Any]:
        """JSON-able part; the numbers are in `scaler.standardise`."""
        return {
            "names": self.names,
            "continuous": self.continuous,
            "discrete": self.discrete,
            "categories": self.categories,
        }

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Inputs":
        """Invert `to_header` and `to_arrays`."""
        scaler = FeatureScaler.from_saved(header["names"], arrays)
        categories = tuple(tuple(values) for values in header["categories"])
        return cls(scaler, tuple(header["continuous"]), tuple(header["discrete"]), categories)

    def _codes(self, values: np.ndarray, column: int, known: Sequence[float]) -> np.ndarray:
        codes = np.asarray(np.searchsorted(known, values).clip(0, len(known) - 1))
        strange = np.unique(values[np.asarray(known)[codes] != values])
        if len(strange):
            given, seen = (", ".join(f"{float(value):g}" for value in numbers) for numbers in (strange, known))
            raise ValueError(
                f"{self.names[column]!r} is {given}; the training draws have {seen}. "
                "A category that was never simulated has no probability: draw more simulations, or check the coding"
            )
        return codes


def fit_inputs(x: np.ndarray, names: tuple[str, ...], family: str, discrete: Sequence[str]) -> Inputs:
    """Fit inputs to training rows `[n, F]`.

    A likelihood leaves out features that are constant, which have no density; the other families see them as 0.

    Args:
        x: training rows.
        names: of the features.
        family: of the method.
        discrete: names of the discrete features.

    Raises:
        ValueError: names that are not there, or no feature left to fit.
    """
    scaler = FeatureScaler(names, Standardise.fit(x))
    varies = np.asarray(scaler.standardise.varies).astype(bool)
    kept = range(len(names)) if family != "likelihood" else np.flatnonzero(varies).tolist()
    picked = [i for i in (_position(name, names, "feature") for name in discrete) if varies[i]]
    continuous = tuple(i for i in kept if i not in picked)
    if not continuous and not picked:
        raise ValueError(f"all {len(names)} features are constant; a likelihood needs one that varies with each draw")
    return Inputs(scaler, continuous, tuple(picked), tuple(tuple(np.unique(x[:, i]).tolist()) for i in picked))


def find_discrete(x: np.ndarray, names: tuple[str, ...], asked: Any) -> tuple[str, ...]:
    """Name the discrete features of MNLE.

    Those asked for, else those that vary in whole numbers with few values.

    Raises:
        ValueError: none or nothing but discrete features, or more categories than can be told apart.
    """
    _check_names(asked)
    values = {name: np.unique(column) for name, column in zip(names, np.asarray(x).T, strict=True)}
    varies = {name for name, v in values.items() if len(v) > 1}
    whole = [name for name, v in values.items() if len(v) <= _MOST_CATEGORIES and np.all(v == np.round(v))]
    chosen = tuple(name for name in whole if name in varies) if asked is None else tuple(asked)
    if not chosen:
        raise ValueError(
            f"MNLE found no discrete feature: none of {', '.join(names)} has whole numbers only, {_MOST_CATEGORIES} "
            "values at most. Name them, network={'discrete': ['choice']}, or use SbiEstimator('NLE')"
        )
    for name in chosen:
        _position(name, names, "feature")
        _check_categories(name, len(values[name]))
    if not varies - set(chosen):
        raise ValueError(
            f"MNLE needs a continuous feature beside the discrete {', '.join(chosen)}; add one to the summary, or name "
            "the discrete ones: network={'discrete': ['choice']}"
        )
    return chosen


@dataclasses.dataclass(frozen=True)
class DiscreteZ:
    """Coordinates of z that MNPE sees as categories.

    A simulator that reads round(theta_k) tells nothing of theta_k but its nearest whole number. So the posterior is
    the probability of each number times the prior within it:

        z      ----|--------|-----      edges of the numbers in z
        code    0       1       2       what the network sees, after the continuous coordinates
        log q(z | h) = log q(continuous, code | h) + log N(z_k) - log P(code)

    Attributes:
        edges: number of each coordinate in z, with the edges between its categories, ascending.
    """

    edges: tuple[tuple[int, tuple[float, ...]], ...] = ()

    def encode(self, z: np.ndarray) -> np.ndarray:
        """What the network sees of z `[N, D]`."""
        if not self.edges:
            return z
        codes = [np.searchsorted(edges, z[:, column]) for column, edges in self.edges]
        return np.column_stack([z[:, self._continuous(z.shape[1])], *codes])

    def decode(self, seen: np.ndarray, key: PRNGKey) -> np.ndarray:
        """z `[..., D]`, drawn from the prior within each category."""
        if not self.edges:
            return seen
        z, size = np.empty_like(seen), seen.shape[-1] - len(self.edges)
        z[..., self._continuous(seen.shape[-1])] = seen[..., :size]
        # the network gives a code; where z lies within its interval the prior decides
        uniform = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (*seen.shape[:-1], len(self.edges))))
        for i, (column, edges) in enumerate(self.edges):
            low, high = _interval(edges, seen[..., size + i].astype(int))
            z[..., column] = ndtri(low + uniform[..., i].astype(np.float64) * (high - low))
        return z

    def log_within(self, z: np.ndarray) -> Any:
        """Prior log density `[N]` of z within its categories."""
        total: Any = np.float32(0.0)
        for column, edges in self.edges:
            low, high = _interval(edges, np.searchsorted(edges, z[:, column]))
            total = total - 0.5 * (z[:, column] ** 2 + np.log(2.0 * np.pi)) - np.log(high - low)
        return total

    def _continuous(self, dim: int) -> list[int]:
        return [i for i in range(dim) if i not in dict(self.edges)]


def _interval(edges: Sequence[float], codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prior probabilities below and up to each category."""
    # the first and the last category reach to the ends of the prior
    ends = ndtr(np.array([-np.inf, *edges, np.inf]))
    return ends[codes], ends[codes + 1]


def find_discrete_z(z: np.ndarray, prior: Prior, asked: Any) -> DiscreteZ:
    """Find the categories of the discrete parameters of MNPE.

    Raises:
        ValueError: none or nothing but discrete parameters, names that the prior lacks, parameters with a joint prior,
            or more categories than can be told apart.
    """
    _check_names(asked)
    if not asked:
        raise ValueError(
            "MNPE was given no discrete parameter; name those that the simulator rounds to whole numbers, "
            f"network={{'discrete': [{prior.names[0]!r}]}}, or use SbiEstimator('NPE')"
        )
    theta = np.asarray(prior.ravel(prior.from_z(z)[0]))
    # edges are set in theta, half way between neighbouring numbers, and carried to z by the prior's own transform
    columns = _z_columns(prior)
    edges = []
    for name in asked:
        row = _position(name, prior.names, "parameter")
        if name not in columns:
            raise ValueError(f"{name!r} has a joint prior; a discrete parameter of MNPE takes one of its own")
        values = np.unique(np.round(theta[:, row]))
        _check_categories(name, len(values))
        grid = np.tile(theta[0], (len(values) - 1, 1))
        grid[:, row] = 0.5 * (values[1:] + values[:-1])
        at = np.asarray(prior.to_z(prior.unravel(grid)))[:, columns[name]]
        edges.append((columns[name], tuple(at.tolist())))
    if len(edges) == prior.z_dim:
        raise ValueError("MNPE needs a continuous parameter beside the discrete ones: leave one out of 'discrete'")
    return DiscreteZ(tuple(edges))


def _z_columns(prior: Prior) -> dict[str, int]:
    """Columns in z of elements with their own prior."""
    sizes = {name: int(np.prod(shape)) for name, shape in prior.z_shapes.items()}
    # leaves follow one another in z as in theta, but a joint prior may have fewer coordinates in z
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    found, names = {}, iter(prior.names)
    for leaf, shape in prior.shapes.items():
        own = [next(names) for _ in range(int(np.prod(shape)))]
        if prior.dists[leaf].event_shape == ():
            found |= {name: starts[leaf] + i for i, name in enumerate(own)}
    return found


def _check_names(asked: Any) -> None:
    if asked is not None and (isinstance(asked, str) or not all(isinstance(name, str) for name in asked)):
        raise TypeError(f"network={{'discrete': {asked!r}}} was given; expected names: network={{'discrete': ['k']}}")


def _check_categories(name: str, count: int) -> None:
    if count > _MOST_CATEGORIES:
        raise ValueError(
            f"{name!r} has {count} values, too many for categories ({_MOST_CATEGORIES} at most); leave it out of "
            "network={'discrete': ...}, so that it counts as continuous"
        )


def _position(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        raise ValueError(
            f"network={{'discrete': ...}} names {name!r}; there is no such {what}. {did_you_mean(name, names)}"
        )
    return names.index(name)
