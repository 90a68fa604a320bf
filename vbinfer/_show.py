"""Parameters as a table for people."""

from collections.abc import Sequence

import numpy as np

from vbinfer._param import Parameter, paths, range_text


def show(tree: object) -> None:
    """Print the parameters of a simulator.

    Path, value, unit, range and meaning, one line each.

    The paths are what `vb.bind` and the keys of a prior take.

    Args:
        tree: a `Simulator`, or any part with declared parameters: a model, a coupling, a stimulus.

    Raises:
        TypeError: something without declared parameters.

    Example:
        >>> import vbinfer as vb
        >>> vb.show(vb.coupling.Linear(G=0.5))
        path    value  unit  range        meaning
        G       0.5          (-inf, inf)  global coupling strength
        offset  0            (-inf, inf)  constant input
    """
    leaves = paths(tree)
    if not leaves:
        raise TypeError(f"a {type(tree).__name__} has no declared parameters; give a vb.Simulator or a part of one")
    rows = [("path", "value", "unit", "range", "meaning"), *(_row(leaf) for leaf in leaves.values())]
    print(aligned(rows))  # noqa: T201  # what it is for


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, two blanks between them.

    >>> print(aligned([("test", "p"), ("location", "0.2")]))
    test      p
    location  0.2
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _row(leaf: Parameter) -> tuple[str, str, str, str, str]:
    value = np.asarray(leaf.value, float)
    shown = f"{value:g}" if value.ndim == 0 else f"{list(value.shape)} {value.min():.4g} to {value.max():.4g}"
    return leaf.path, shown, leaf.unit, range_text(leaf.low, leaf.high), leaf.doc
