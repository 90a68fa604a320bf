"""Results that explain themselves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from .figure import Figure
from .thresholds import P_FAIL, P_WARN

Status = Literal["pass", "warn", "fail"]
Names = tuple[str, ...]
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of parameters by path."""
ByLeaf = dict[str, Any]
"""By path: a number for a scalar parameter, an array of the parameter's shape for any other."""
STATUSES: tuple[Status, ...] = ("pass", "warn", "fail")
"""From good to bad."""


class AbstractResult:
    """Base class of what every diagnostic returns.

    A report iterates over results and needs to know nothing else about them.

    Attributes:
        question: what a reader asks, as `Have the chains converged?`
        rule: when it warns and fails, a sentence made of the constants that decide.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences, the most important first.
        beside: attributes that are no numbers of the result, by name.
    """

    question: ClassVar[str]
    rule: ClassVar[str]
    beside: ClassVar[Names] = ()
    verdict: Status
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the verdict is `pass`."""
        return self.verdict == "pass"

    @property
    def numbers(self) -> dict[str, Any]:
        """JSON-able numbers by name; None where not finite.

        Scalars are facts, lists of dicts with the same keys are tables.
        """
        left_out = ("verdict", "findings", *self.beside)
        return json_able({name: value for name, value in vars(self).items() if name not in left_out})

    def figure(self) -> Figure | None:
        """What to draw, from what the result holds."""
        return None


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of some statuses; `pass` when there is none.

    Whoever needs another answer for "nothing was checked" says so at the call.

    >>> worst(["pass", "fail", "warn"]), worst([])
    ('fail', 'pass')
    """
    return STATUSES[max((STATUSES.index(status) for status in statuses), default=0)]


def status_of(value: float, warn: float = P_WARN, fail: float = P_FAIL) -> Status:
    """Status of a number that should not be small.

    A p-value, for instance.

    >>> status_of(0.2), status_of(0.03), status_of(0.001)
    ('pass', 'warn', 'fail')
    """
    return "fail" if value < fail else "warn" if value < warn else "pass"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence, the first few of many.

    >>> listed(["fc.mean", "fcd.var", "psd.peak"], most=2)
    'fc.mean, fcd.var and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def chosen(names: Sequence[str], flags: ArrayLike) -> list[str]:
    """Names whose flag is set.

    >>> chosen(["fc.mean", "fcd.var"], np.array([False, True]))
    ['fcd.var']
    """
    return [names[i] for i in np.flatnonzero(flags).tolist()]


def observation(x_o: Any, names: Sequence[str], gaps: bool = False) -> np.ndarray:
    """The observed features `[F]`, checked.

    Raises:
        ValueError: another shape, or numbers that are not finite; with gaps NaN is a feature that is missing.
    """
    row = np.asarray(x_o, dtype=np.result_type(np.asarray(x_o).dtype, np.float32))
    if row.shape != (len(names),):
        raise ValueError(f"x_o has shape {list(row.shape)}; expected [{len(names)}] finite numbers, one per feature")
    bad = chosen(names, np.isinf(row) if gaps else ~np.isfinite(row))
    if bad:
        raise ValueError(f"x_o has NaN or infinite values in {listed(bad)}; clean the recording")
    return row


def features_there(rows: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Which features are there `[F]`, a sentence on others.

    Raises:
        ValueError: nothing is there, or not the same in all rows.
    """
    there = ~np.isnan(rows)
    if not there.any(axis=1).all() or (there != there[0]).any():
        what = "other features in each row" if there.any(axis=1).all() else "every feature"
        raise ValueError(f"x_o is missing {what}: NaN stands for what is missing; give rows that lack the same ones")
    gone = chosen(names, ~there[0])
    said = [f"{len(gone)} of {len(names)} features are missing in the recording and were left out: {listed(gone)}."]
    return there[0], said if gone else []


def percent(share: float) -> str:
    """A share in percent.

    >>> percent(0.5), percent(float("nan"))
    ('50 %', '-')
    """
    return f"{100 * share:.3g} %" if np.isfinite(share) else "-"


def json_able(value: Any) -> Any:
    """What JSON takes, from arrays and named tuples.

    Nested lists and dicts; None for what is not finite.

    >>> json_able({"p": np.array([0.5, np.nan])})
    {'p': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): json_able(one) for name, one in value.items()}
    if hasattr(value, "_asdict"):
        return json_able(value._asdict())
    if isinstance(value, list | tuple):
        return [json_able(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return json_able(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
