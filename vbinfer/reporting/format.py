"""Numbers as text, with digits that match their uncertainty."""

import math
from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"


def number(value: object, digits: int = 3) -> str:
    """A number with significant digits; text as it is.

    >>> number(0.12345), number(None), number(float("nan"))
    ('0.123', '', 'not a number')
    """
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return "not a number"
    return signed(f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.{digits}g}")


def fixed2(value: float) -> str:
    """Two decimals, as shares and z-scores are read.

    >>> fixed2(-0.001), fixed2(0.934)
    ('0.00', '0.93')
    """
    return signed(f"{value:.2f}") if math.isfinite(value) else "not a number"


def round_to_sd(values: list[float], sd: float) -> list[str]:
    """Numbers rounded to two digits of their standard deviation.

    >>> round_to_sd([0.381, 0.4172], 0.0204)
    ['0.381', '0.417']
    >>> round_to_sd([5931.0, 15547.2], 3990.0)
    ['5,900', '15,500']
    """
    if not (math.isfinite(sd) and sd > 0.0):
        return [number(value) for value in values]
    decimals = 1 - math.floor(math.log10(sd))
    if not -7 <= decimals <= 6:
        return [number(value) for value in values]
    return [signed(f"{round(value, decimals):,.{max(decimals, 0)}f}") for value in values]


def plus_minus(mean: float, sd: float) -> str:
    """A mean and its standard deviation.

    >>> plus_minus(0.3812, 0.0204)
    '0.381 ± 0.020'
    """
    return " ± ".join(round_to_sd([mean, sd], sd))


def of_time(ms: float) -> tuple[float, str]:
    """A unit that suits a duration, and its name.

    >>> of_time(259_200.0), of_time(80_000.0), of_time(20.0)
    ((60000.0, 'min'), (1000.0, 's'), (1.0, 'ms'))
    """
    return (60e3, "min") if ms >= 120e3 else (1e3, "s") if ms >= 2e3 else (1.0, "ms")


def percent(share: float, decimals: int = 0) -> str:
    """A share as a percentage.

    >>> percent(0.045, 1)
    '4.5 %'
    """
    return signed(f"{100.0 * share:.{decimals}f}") + " %"


def signed(text: str) -> str:
    """A number's text with a true minus sign."""
    if text.startswith("-") and float(text.replace(",", "")) == 0.0:
        text = text[1:]
    return text.replace("-", MINUS)


def paragraph(findings: Sequence[str], most: int | None = 3) -> str:
    """The first findings (None: all) as one paragraph.

    >>> paragraph(["the chains agree", "No transition diverged."])
    'The chains agree. No transition diverged.'
    """
    said = []
    for text in [item.strip() for item in findings if item.strip()][:most]:
        word = text.split()[0].isalpha()  # names of parameters and features stay as they are
        said.append(text[0].upper() + text[1:] if word else text)
        said[-1] += "" if said[-1].endswith((".", "!", "?")) else "."
    return " ".join(said)
