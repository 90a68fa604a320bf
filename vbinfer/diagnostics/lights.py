"""What all diagnostics say alike: a light, and names listed in a sentence."""

from collections.abc import Iterable, Sequence
from typing import Literal

Light = Literal["pass", "warn", "fail"]
_ORDER: tuple[Light, ...] = ("pass", "warn", "fail")


def worst(lights: Iterable[Light]) -> Light:
    """The worst of some lights; `pass` when there is none.

    >>> worst(["pass", "fail", "warn"])
    'fail'
    """
    return _ORDER[max((_ORDER.index(light) for light in lights), default=0)]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence, the first few of many.

    >>> listed(["fc.mean", "fcd.var", "psd.peak"], most=2)
    'fc.mean, fcd.var and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
