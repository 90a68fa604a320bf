"""Inputs of a report, checked against each other."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from vbinfer._param import did_you_mean
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

from .sections import Section

if TYPE_CHECKING:
    from vbinfer.diagnostics.calibration.result import Calibration


@runtime_checkable
class RecordingLike(Protocol):
    """A recording: values `[time, node]`, period in ms, labels."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def period(self) -> float: ...
    @property
    def labels(self) -> Sequence[str] | None: ...


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Simulated observations of known truth, with their posteriors.

    Args:
        theta_true: the truths, leaves `[n, ...]`.
        theta: posterior draws for each observation, leaves `[n, draw, ...]`, as `sample_batch` returns them.

    Raises:
        ValueError: different parameters, or a different number of observations, in the two.
    """

    theta_true: Mapping[str, ArrayLike]
    theta: Mapping[str, ArrayLike]

    def __post_init__(self) -> None:
        if set(self.theta_true) != set(self.theta):
            raise ValueError(
                f"Recovery has truths of {sorted(self.theta_true)} but posterior draws of {sorted(self.theta)}; "
                "give the same parameters in both"
            )
        for name, truth in self.theta_true.items():
            given = np.shape(self.theta[name])
            if len(given) < 2 or given[0] != np.shape(truth)[0] or given[2:] != np.shape(truth)[1:]:
                raise ValueError(
                    f"Recovery of {name!r}: truths {list(np.shape(truth))} with draws {list(given)}; "
                    "expected [n, ...] and [n, draw, ...]"
                )


@dataclasses.dataclass(frozen=True)
class ReportExtras:
    """What a report may carry beyond the posterior's own evidence.

    Args:
        prior_predictive: simulations from the prior with their series, for FC and FCD beside the posterior's.
        recovery: the same estimator asked about simulated observations of known truth.
        replicates: name to posterior, the same question asked of other segments or sessions.
        structural: structural connectivity `[node, node]`, compared with the recording's FC.
        centres: of the regions `[node, 3]`, x, y, z in mm; without, they are drawn on a ring.
        sections: sections of the user's own, placed before the provenance.
        notes: further facts for the provenance table (seeds, timings, command).
        units: unit by parameter path (`{"model.tau": "ms"}`).
        fcd: window and step of the functional connectivity dynamics, in ms.
        title: the heading of the page.
    """

    prior_predictive: Predictive | None = None
    recovery: Recovery | None = None
    replicates: Mapping[str, Posterior] = dataclasses.field(default_factory=dict)
    structural: np.ndarray | None = None
    centres: np.ndarray | None = None
    sections: Sequence[Section] = ()
    notes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fcd: tuple[float, float] = (60e3, 5e3)
    title: str = "Posterior report"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Inputs of one report."""

    posterior: Posterior
    prior: Prior | None = None
    draws: Draws | None = None
    fit: FitInfo | None = None
    predictive: Predictive | None = None
    observed: RecordingLike | None = None
    theta_true: Mapping[str, ArrayLike] | None = None
    extras: ReportExtras = dataclasses.field(default_factory=ReportExtras)
    calibration: "Calibration | None" = None
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_parameters()
        self._check_draws()
        self._check_features()
        self._check_nodes()

    @property
    def x_o(self) -> np.ndarray | None:
        """Features of the recording `[F]`."""
        return None if self.posterior.x_o is None else np.asarray(self.posterior.x_o, np.float64).ravel()

    def answer(self, kind: str, ask: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        """A result: the one that was given, else asked for.

        None where inputs are missing, and a sentence where the question cannot be asked of them.
        """
        given = next((item for item in self.given.values() if type(item).__name__ == kind), None)
        if given is not None or any(one is None for one in inputs):
            return given
        try:
            return ask(*inputs, **options)
        except ValueError as error:
            return str(error)

    def _check_parameters(self) -> None:
        known = list(self.posterior.theta)
        recovery, prior, calibration = self.extras.recovery, self.prior, self.calibration
        given = {"theta_true": self.theta_true, "recovery": None if recovery is None else recovery.theta}
        for source, theta in given.items():
            for name in theta or ():
                if name not in known:
                    raise ValueError(
                        f"{source} names {name!r}; the posterior has no such parameter. {did_you_mean(name, known)}"
                    )
            missing = [name for name in known if theta and name not in theta]
            if missing:
                raise ValueError(f"{source} lacks {missing}; the posterior has {known}")
        if prior is not None and set(prior.shapes) != set(known):
            raise ValueError(
                f"prior is over {', '.join(sorted(prior.shapes))} but the posterior is over "
                f"{', '.join(sorted(known))}; give the prior that the posterior was made with"
            )
        if calibration is not None and set(calibration.names) != set(self.posterior.names):
            raise ValueError(
                f"calibration is of {', '.join(calibration.names)} but the posterior is of "
                f"{', '.join(self.posterior.names)}; give the calibration of the same study"
            )

    def _check_draws(self) -> None:
        for name, leaf in self.posterior.theta.items():
            bad = int(np.sum(~np.isfinite(leaf)))
            if bad:
                raise ValueError(
                    f"the posterior's {name} is NaN or infinite in {bad} of {np.size(leaf)} draws; "
                    "find out why before reporting, or leave these draws out and say so"
                )
        total = self.posterior.num_chains * self.posterior.num_samples
        if total < 2:
            raise ValueError(f"the posterior has {total} draw; a report needs at least 2, better 1,000")

    def _check_features(self) -> None:
        sources = {
            "draws": self.draws,
            "predictive": self.predictive,
            "prior_predictive": self.extras.prior_predictive,
        }
        sizes = {name: np.shape(item.x)[1] for name, item in sources.items() if item is not None}
        if self.x_o is not None:
            sizes["posterior.x_o"] = self.x_o.size
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"numbers of features differ: {text}; pass results of one and the same Summary")

    def _check_nodes(self) -> None:
        if self.observed is None:
            return
        shape, structural = np.shape(self.observed.values), self.extras.structural
        if len(shape) != 2:
            raise ValueError(f"observed.values has shape {list(shape)}; expected [time, node]")
        n = shape[1]
        for name, item in (("predictive", self.predictive), ("prior_predictive", self.extras.prior_predictive)):
            ys = series(item)
            if ys is not None and ys.shape[-1] != n:
                raise ValueError(
                    f"observed has {n} channels but {name}.ys has {ys.shape[-1]} nodes; "
                    "the recording's channels must be the connectome's rows"
                )
        if (centres := self.extras.centres) is not None and np.shape(centres) != (n, 3):
            raise ValueError(f"centres is {list(np.shape(centres))} with {n} channels; expected [{n}, 3]")
        if structural is not None and np.shape(structural) != (n, n):
            raise ValueError(
                f"structural is {list(np.shape(structural))} but the recording has {n} channels; expected [{n}, {n}]"
            )


def series(predictive: Predictive | None) -> np.ndarray | None:
    """Valid simulated series `[n, time, node]`, of one monitor."""
    if predictive is None or predictive.ys is None or isinstance(predictive.ys, Mapping):
        return None
    ys = np.asarray(predictive.ys)[predictive.valid]
    return ys if len(ys) else None
