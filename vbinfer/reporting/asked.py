"""Diagnostics that a report asks itself, and those it is given: one result each, or why there is none."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from vbinfer.diagnostics.chains import Convergence, convergence
from vbinfer.diagnostics.predictive import (
    FEWEST_REPLICATES,
    PredictiveCheck,
    pooled_p,
    predictive_check,
    test_quantities,
)
from vbinfer.diagnostics.prior_check import Misspecification, misspecification
from vbinfer.diagnostics.result import STATUSES
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.posterior import Posterior

T = TypeVar("T")
_KEY = 0  # a report of the same inputs is the same page


@runtime_checkable
class Diagnostic(Protocol):
    """What every diagnostic returns: a light, and sentences."""

    @property
    def verdict(self) -> str: ...
    @property
    def findings(self) -> tuple[str, ...]: ...


def named(given: Mapping[str, Any] | Iterable[Any] | Diagnostic | None) -> dict[str, Diagnostic]:
    """Results by name; those of a sequence are named after their type.

    Raises:
        TypeError: something that has no verdict and findings.
        ValueError: a light that is not one of three.
    """
    if given is None:
        return {}
    if isinstance(given, Diagnostic):
        raise TypeError(f"checks is one {type(given).__name__}; write checks=[result] or checks={{'name': result}}")
    items = given.items() if isinstance(given, Mapping) else [(None, item) for item in given]
    result: dict[str, Diagnostic] = {}
    for name, item in items:
        if not isinstance(item, Diagnostic):
            raise TypeError(
                f"checks holds a {type(item).__name__}; expected results of vb.lc2st, vb.misspecification, "
                "vb.sensitivity, vb.loo, ...: objects with .verdict and .findings"
            )
        if item.verdict not in STATUSES:
            raise ValueError(f"a {type(item).__name__} has the verdict {item.verdict!r}; expected one of {STATUSES}")
        label = str(name) if name is not None else _free(type(item).__name__, result)
        result[label] = item
    return result


def _free(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    while (label := name if number == 2 and name not in taken else f"{name} {number}") in taken:
        number += 1
    return label


@dataclasses.dataclass(frozen=True)
class Asked:
    """Diagnostics of one posterior; each is computed once, on first use, unless it was given."""

    posterior: Posterior
    draws: Draws | None
    predicted: Predictive | None
    observed: np.ndarray | None
    given: Mapping[str, Diagnostic]

    @functools.cached_property
    def misspecification(self) -> Misspecification | str | None:
        """Whether the model could have made the recording; None without draws or x_o."""
        found = self.first(Misspecification)
        if found is not None or self.draws is None or self.posterior.x_o is None:
            return found
        try:
            return misspecification(np.ravel(self.posterior.x_o), self.draws, key=jax.random.key(_KEY))
        except ValueError as error:
            return str(error)

    @functools.cached_property
    def convergence(self) -> Convergence | str | None:
        """Whether chains agree; None for draws that are independent by construction."""
        found = self.first(Convergence)
        if found is not None or (self.posterior.num_chains == 1 and not self.posterior.sample_stats):
            return found
        try:
            return convergence(self.posterior)
        except ValueError as error:
            return str(error)

    @functools.cached_property
    def predictive(self) -> PredictiveCheck | str | None:
        """Whether the fitted model makes features like the recording's; None without predictive or x_o."""
        found = self.first(PredictiveCheck)
        if found is not None or self.predicted is None or self.posterior.x_o is None:
            return found
        try:
            return predictive_check(self.predicted, np.ravel(self.posterior.x_o))
        except ValueError as error:
            return str(error)

    @functools.cached_property
    def series(self) -> dict[str, float]:
        """p of statistics of the series, corrected for their number; the unit and the level are left out.

        Signals such as BOLD have neither, and models none that agrees with the scanner's: each recording is centred
        by channel and brought to a variance of one over all channels.
        """
        ys = None if self.predicted is None else self.predicted.ys
        if self.predicted is None or ys is None or isinstance(ys, Mapping) or self.observed is None:
            return {}
        replicates = np.asarray(ys, np.float64)[np.asarray(self.predicted.valid, bool)]
        length = min(len(self.observed), replicates.shape[1]) if len(replicates) else 0
        if len(replicates) < FEWEST_REPLICATES or length < 4 or not np.isfinite(self.observed).all():
            return {}
        rows = np.concatenate([np.asarray(self.observed, np.float64)[None, :length], replicates[:, :length]])
        rows = rows - rows.mean(axis=1, keepdims=True)
        rows = rows / np.maximum(rows.std(axis=(1, 2), keepdims=True), 1e-30)
        names, statistics = test_quantities(rows)
        kept = [i for i, name in enumerate(names) if name not in ("mean", "log sd")]
        adjusted = pooled_p(statistics[:, kept])[1]
        return {names[i]: float(p) for i, p in zip(kept, adjusted, strict=True)}

    @property
    def others(self) -> dict[str, Diagnostic]:
        """The given results that are none of these."""
        own = (Misspecification, Convergence, PredictiveCheck)
        return {name: item for name, item in self.given.items() if not isinstance(item, own)}

    def first(self, kind: type[T]) -> T | None:
        """The first given result of a kind."""
        return next((item for item in self.given.values() if isinstance(item, kind)), None)


def paragraph(findings: Sequence[str], most: int = 3) -> str:
    """Findings as sentences of one paragraph, the first few.

    >>> paragraph(["the chains agree", "No transition diverged."])
    'The chains agree. No transition diverged.'
    """
    said = []
    for text in [item.strip() for item in findings if item.strip()][:most]:
        word = text.split()[0].isalpha()  # names of parameters and features stay as they are
        said.append(text[0].upper() + text[1:] if word else text)
        said[-1] += "" if said[-1].endswith((".", "!", "?")) else "."
    return " ".join(said)
