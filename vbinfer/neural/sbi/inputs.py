"""From summaries x to what a network of the sbi package sees, and back in density."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vbinfer._param import did_you_mean
from vbinfer.neural.scaler import FeatureScaler, Standardise

_MOST_CATEGORIES = 20


@dataclasses.dataclass(frozen=True)
class Inputs:
    """h `[..., H]` of x `[..., F]`: standardised continuous features first, then the codes of discrete ones.

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
        h = np.asarray(self.scaler.standardise(jnp.asarray(x)), np.float32)[..., list(self.continuous)]
        codes = [self._codes(x[..., i], i, known) for i, known in zip(self.discrete, self.categories, strict=True)]
        return np.concatenate([h, *(code[..., None] for code in codes)], axis=-1, dtype=np.float32)

    def log_det(self, x: np.ndarray) -> np.ndarray:
        """log |d h / d x| `[...]` over the continuous features."""
        slopes = self.scaler.standardise.log_slope(jnp.asarray(x, jnp.result_type(float)))
        return np.asarray(slopes)[..., list(self.continuous)].sum(-1)

    def observe(self, x_o: Any, trials: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
        """x_o checked, and the names of the features in which it lies outside the training draws, after a warning.

        With `trials`, x_o may be `[T, F]`; one warning covers all rows.
        """
        if not (trials and np.ndim(x_o) == 2):
            return self.scaler.observe(x_o)
        rows = self.scaler.check(x_o, ndim=2)
        far = self.scaler.standardise.outside(rows)
        strange = np.where(far.any(0), rows[far.argmax(0), np.arange(rows.shape[1])], rows[0])
        return rows, self.scaler.observe(strange)[1]

    def to_header(self) -> dict[str, Any]:
        """Its JSON-able part; the numbers are in `scaler.standardise.to_arrays()`."""
        return {
            "names": list(self.names),
            "continuous": list(self.continuous),
            "discrete": list(self.discrete),
            "categories": [list(values) for values in self.categories],
        }

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Inputs":
        """The inverse of `to_header` and `to_arrays`."""
        scaler = FeatureScaler.from_saved(header["names"], arrays)
        categories = tuple(tuple(values) for values in header["categories"])
        return cls(scaler, tuple(header["continuous"]), tuple(header["discrete"]), categories)

    def _codes(self, values: np.ndarray, column: int, known: Sequence[float]) -> np.ndarray:
        codes = np.asarray(np.searchsorted(known, values).clip(0, len(known) - 1))
        strange = np.unique(values[np.asarray(known)[codes] != values])
        if len(strange):
            raise ValueError(
                f"{self.names[column]!r} is {_numbers(strange)}; the training draws have {_numbers(known)}. "
                "A category that was never simulated has no probability: draw more simulations, or check the coding"
            )
        return codes


def fit_inputs(x: np.ndarray, names: tuple[str, ...], family: str, discrete: Sequence[str] | None) -> Inputs:
    """Inputs from training rows `[n, F]`.

    A likelihood leaves out features that are constant, which have no density; the other families see them as 0.

    Args:
        x: training rows.
        names: of the features.
        family: of the method.
        discrete: names of the discrete features; None for none.

    Raises:
        ValueError: names that are not there, or no feature left to fit.
    """
    scaler = FeatureScaler(names, Standardise.fit(x))
    varies = np.asarray(scaler.standardise.varies).astype(bool)
    kept = range(len(names)) if family != "likelihood" else np.flatnonzero(varies).tolist()
    picked = [_position(name, names) for name in discrete or ()]
    picked = [i for i in picked if varies[i]]
    continuous = tuple(i for i in kept if i not in picked)
    if not continuous and not picked:
        raise ValueError(f"all {len(names)} features are constant; a likelihood needs one that varies with each draw")
    return Inputs(scaler, continuous, tuple(picked), tuple(tuple(np.unique(x[:, i]).tolist()) for i in picked))


def find_discrete(x: np.ndarray, names: tuple[str, ...], asked: Any) -> tuple[str, ...]:
    """The discrete features that MNLE is to see: those asked for, else the whole-numbered ones with few values.

    Raises:
        ValueError: none or nothing but discrete features, or more categories than can be told apart.
    """
    if asked is not None and (isinstance(asked, str) or not all(isinstance(name, str) for name in asked)):
        raise TypeError(f"network={{'discrete': {asked!r}}} was given; expected names of features: ['choice']")
    values = [np.unique(column) for column in np.asarray(x).T]
    whole = [len(v) <= _MOST_CATEGORIES and bool(np.all(v == np.round(v))) for v in values]
    varies = [len(v) > 1 for v in values]
    found = [name for name, yes, moves in zip(names, whole, varies, strict=True) if yes and moves]
    chosen = tuple(found if asked is None else asked)
    if not chosen:
        raise ValueError(
            f"MNLE found no discrete feature: none of {', '.join(names)} has whole numbers only, {_MOST_CATEGORIES} "
            "values at most. Name them, network={'discrete': ['choice']}, or use SbiEstimator('NLE')"
        )
    for name in chosen:
        count = len(values[_position(name, names)])
        if count > _MOST_CATEGORIES:
            raise ValueError(
                f"{name!r} has {count} values, too many for categories ({_MOST_CATEGORIES} at most); leave it out of "
                "network={'discrete': ...}, so that it counts as continuous"
            )
    if not set(names) - set(chosen) - {name for name, moves in zip(names, varies, strict=True) if not moves}:
        raise ValueError(
            f"MNLE needs a continuous feature beside the discrete {', '.join(chosen)}; add one to the summary, or name "
            "the discrete ones: network={'discrete': ['choice']}"
        )
    return chosen


def _position(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise ValueError(
            f"network={{'discrete': ...}} names {name!r}; the draws have no such feature. {did_you_mean(name, names)}"
        )
    return names.index(name)


def _numbers(values: Any) -> str:
    return ", ".join(f"{float(value):g}" for value in values)
