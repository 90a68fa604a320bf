"""Results about the posterior of a report, given or computed."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vbinfer.diagnostics.modes import Modes, find_modes
from vbinfer.diagnostics.predictive import PredictiveCheck, predictive_check
from vbinfer.diagnostics.prior_check import Misspecification, misspecification

from .evidence import Evidence

if TYPE_CHECKING:
    from vbinfer.diagnostics.chains import Convergence


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """What a report asks by itself.

    An answer that was given is not asked for again.

    A field is None where inputs are missing, and a sentence where the question cannot be asked of them.
    """

    modes: Modes | None
    misspecification: Misspecification | str | None
    convergence: "Convergence | str | None"
    predictive: PredictiveCheck | str | None

    @classmethod
    def of(cls, e: Evidence) -> "Diagnostics":
        """Ask the inputs of a report."""
        # draws that are independent by construction have no chains to look at
        has_chains = e.posterior.num_chains > 1 or bool(e.posterior.sample_stats)
        has_x_o = e.posterior.x_o is not None
        return cls(
            find_modes(e.posterior, e.prior),
            _answer(e, "Misspecification", has_x_o and e.draws is not None, _misspecified),
            _answer(e, "Convergence", has_chains, _converged),
            _answer(e, "PredictiveCheck", has_x_o and e.predictive is not None, _predicted),
        )


def _answer(e: Evidence, kind: str, possible: bool, ask: Callable[[Evidence], Any]) -> Any:
    """A result, or why there is none.

    What was given comes before what is asked for.
    """
    given = next((item for item in e.given.values() if type(item).__name__ == kind), None)
    if given is not None or not possible:
        return given
    try:
        return ask(e)
    except ValueError as error:
        return str(error)


def _misspecified(e: Evidence) -> Any:
    # a fixed key: the report of the same inputs is the same page
    return e.draws and misspecification(np.ravel(e.posterior.x_o), e.draws, key=jax.random.key(0))


def _converged(e: Evidence) -> Any:
    from vbinfer.diagnostics.chains import convergence

    return convergence(e.posterior)


def _predicted(e: Evidence) -> Any:
    return e.predictive and predictive_check(e.predictive, np.ravel(e.posterior.x_o))
