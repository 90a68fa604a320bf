"""Monitors of regions, over the points of a field."""

import dataclasses
from typing import Any, ClassVar

from jaxtyping import Array

from vbinfer.monitors.base import AbstractMonitor


class OfRegions(AbstractMonitor):
    """A monitor that sees means of regions instead of points.

    BOLD, sensors and averages of R regions instead of N points of a field: `[T, R]`, for R / N of the work. What is
    not linear in the state, as `BalloonWindkessel`, is of the mean. Parameters are those of the monitor inside,
    `monitors.bold.monitor.kappa`.

    Args:
        monitor: any monitor, of region means.
        regions: a `vb.fields.RegionMap`.

    >>> import vbinfer as vb
    >>> regions = vb.fields.RegionMap([0, 0, 1])
    >>> vb.monitors.OfRegions(vb.monitors.BalloonWindkessel("r", period=720.0), regions).period
    720.0
    """

    by_node: ClassVar[bool] = False
    monitor: AbstractMonitor
    regions: Any

    def validate(self) -> None:
        if not isinstance(self.monitor, AbstractMonitor) or not hasattr(self.regions, "to_regions"):
            raise TypeError(
                f"OfRegions was given {type(self.monitor).__name__} and {type(self.regions).__name__}; expected a "
                'monitor and a RegionMap, OfRegions(vb.monitors.TimeAverage(1.0, "r"), field.regions)'
            )

    @property
    def var(self) -> Any:
        return self.monitor.var

    @property
    def period(self) -> float | None:
        return self.monitor.period

    def placed(self, labels: tuple[str, ...] | None) -> "OfRegions":
        return dataclasses.replace(self, monitor=self.monitor.placed(self.regions.labels))

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return self.monitor.reads(variables)

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return self.monitor.sample_shape(self.regions.n_regions)

    def check_nodes(self, n: int) -> None:
        if self.regions.n_nodes != n:
            raise ValueError(f"OfRegions has a map of {self.regions.n_nodes} points; the simulation has {n}")
        self.monitor.check_nodes(self.regions.n_regions)

    def stride(self, dt: float) -> int | None:
        return self.monitor.stride(dt)

    def _means(self, x: dict[str, Array]) -> dict[str, Array]:
        return {name: self.regions.to_regions(a) for name, a in x.items()}

    def init(self, x: dict[str, Array]) -> Any:
        return self.monitor.init(self._means(x))

    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        return self.monitor.observe(carry, self._means(x))

    def update(self, carry: Any, dt: float) -> Any:
        return self.monitor.update(carry, dt)

    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        return self.monitor.sample(carry, self._means(x))
