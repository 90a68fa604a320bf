"""What all diagnostics say alike: a light, and names listed in a sentence."""

import abc
from collections.abc import Iterable, Sequence
from typing import Literal

Light = Literal["pass", "warn", "fail"]
ORDER: tuple[Light, ...] = ("pass", "warn", "fail")
LEVEL, CLEAR = 0.05, 0.01
"""p-values below which a single look at one observation warns, and fails: one good recording in twenty warns."""


class AbstractResult(abc.ABC):
    """What every diagnostic answers with: a light, and what was found in sentences."""

    verdict: str
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the verdict is `pass`."""
        return self.verdict == "pass"


def worst(lights: Iterable[Light]) -> Light:
    """The worst of some lights; `pass` when there is none.

    >>> worst(["pass", "fail", "warn"])
    'fail'
    """
    return ORDER[max((ORDER.index(light) for light in lights), default=0)]


def light_of(p: float) -> Light:
    """The light of one p-value.

    >>> light_of(0.2), light_of(0.03), light_of(0.001)
    ('pass', 'warn', 'fail')
    """
    return "fail" if p < CLEAR else "warn" if p < LEVEL else "pass"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence, the first few of many.

    >>> listed(["fc.mean", "fcd.var", "psd.peak"], most=2)
    'fc.mean, fcd.var and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
