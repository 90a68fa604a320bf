"""What a report cannot say, in plain words."""

import numpy as np

from .evidence import Evidence
from .section import Part, Text
from .words import percent


def limits(e: Evidence, absent: list[str]) -> Part:
    """What the posterior is conditional on, what each check is blind to, and what was not asked."""
    said = [
        "The posterior is conditional on the model, its prior, and the features that the recording was reduced to: "
        "what the features do not measure, no check on this page can see."
    ]
    if e.draws is not None:
        failed = int(np.sum(~np.asarray(e.draws.valid)))
        if failed:
            said.append(
                f"It is also conditional on a simulation that works: {percent(failed / len(e.draws), 1)} of the "
                "simulations failed, and parameters at which they do are excluded without a word from the data."
            )
    if e.calibration is not None or e.extras.recovery is not None:
        said.append(
            "Calibration and recovery are averages over the prior. The prior itself would pass them as a posterior, "
            "errors at this recording can hide behind the others, and simulated data are never unlike the model."
        )
    if e.predictive is not None:
        said.append(
            "Posterior predictive checks use the recording twice, to fit and to check: a bad one counts, a good one "
            "proves little. A wrong model can predict these features well with wrong parameters."
        )
    if e.posterior.num_chains > 1:
        said.append("Chains that agree can agree on a wrong posterior: no chain may have found a further mode.")
    elif e.fit is not None:
        said.append(
            "A neural posterior is trusted near its training draws only; for a recording outside them it extrapolates."
        )
    if absent:
        said.append(f"Not asked, for want of input: {'; '.join(absent)}.")
    return Part("limits", "Known limits", [Text(text) for text in said])
