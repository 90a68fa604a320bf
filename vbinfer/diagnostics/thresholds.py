"""Every threshold that decides a verdict, in one place.

The `rule` of a result is a sentence made of these numbers, so a rule that is printed is the rule that decided.
"""

from vbinfer._arviz import PARETO_K as PARETO_K

# One look at one observation.
P_WARN = 0.05
"""p-value below which one look warns: one good recording in twenty does."""
P_FAIL = 0.01
"""p-value below which one look fails."""

# Many tests of one study, whose p-values share a false-alarm rate (Holm).
FAMILY_WARN = 0.05
"""Adjusted p-value below which a study warns: the false-alarm rate of all its tests together."""
FAMILY_FAIL = 0.001
"""Adjusted p-value below which a study fails."""
POWER = 0.9
"""Probability with which a test is said to find what it `detects`."""
BAND = 0.95
"""Probability that the ECDF of right ranks stays inside the band that is drawn."""
FEWEST_DATA_SETS, FEW_DATA_SETS, WANTED_DATA_SETS = 50, 100, 300
"""Data sets below which no verdict is given (a posterior twice too narrow could pass), that warn, and that are asked
for."""
FEWEST_RANKED = 10
"""Posterior draws below which a rank among them says little."""
EFFECTIVE_SHARE = 0.5
"""Effective draws over draws kept, below which ranks are those of autocorrelated draws, and a study warns."""

# What was learned.
NOTHING_LEARNED = 0.1
"""Share of the prior's variance below which a reduction is called nothing: 5 % of its sd, or 0.05 nats.

It is the smallest share that both a posterior of a few hundred independent draws (whose variance has a standard error
of 6 %) and a calibration study of a hundred data sets (whose correlations have one of 0.1) can tell from none."""
NO_GAIN = 1e-3
"""Nats of information gain that are rounding: the density is the prior's."""
GAIN_SURE = 0.05
"""Nats of information gain that say something was learned where means do not move: those of 10 % of a variance."""
WELL_DETERMINED = 0.5
"""Shrinkage from which a parameter is called well determined."""
FAR = 2.0
"""|z| of a posterior mean beyond which the truth is far: 5 % of right, normal posteriors."""
EDGE_PRIOR, EDGE_POSTERIOR = 0.025, 0.25
"""Posterior share in an outer tail of the prior, of this mass, that asks for a wider prior."""
SENSITIVE = 0.05
"""Power-scaling sensitivity worth a look (Kallioinen et al. 2023, doi:10.1007/s11222-023-10366-5)."""
CONFLICT = 0.99
"""Mass of the prior outside which a posterior mean conflicts with it."""

# Chains (Vehtari et al. 2021, doi:10.1214/20-BA1221; Betancourt 2016, doi:10.48550/arXiv.1604.00695).
RHAT_WARN, RHAT_FAIL = 1.01, 1.05
"""R-hat above which chains have not mixed well, and sit in different places."""
ESS_PER_CHAIN, ESS_WARN, ESS_FAIL = 100, 400, 100
"""Effective draws that are wanted per chain and in all, and below which nothing can be estimated."""
EBFMI_WARN, EBFMI_FAIL = 0.3, 0.2
"""Energy fraction of missing information below which chains move slowly between energies, and hardly."""
DIVERGING_FAIL = 0.01
"""Share of divergent transitions from which the draws are not the posterior's; one of them warns."""
ACCEPT_SHORT = 0.2
"""How far acceptance may stay below its target."""
LOCATED, LOCATED_P = 0.15, 0.01
"""Distance from 1/2 of the chance that a divergent draw lies above another, and p, for a parameter to be named."""

# Importance weights (Vehtari et al. 2024, J. Mach. Learn. Res. 25:72).
PARETO_K_FAIL = 1.0
"""Pareto k above which the mean of weights does not exist; above PARETO_K they are uneven."""
MANY_HIGH_K = 0.1
"""Share of observations with a high Pareto k above which leave-one-out prediction fails."""
UNEVEN_SHARE = 0.2
"""Share of replicates with uneven weights above which posterior SBC warns."""

# Two posteriors, or two models.
C2ST_WARN, C2ST_FAIL = 0.6, 0.7
"""Accuracy of a classifier above which two posteriors differ, and disagree."""
MEAN_WARN, MEAN_FAIL = 0.25, 0.5
"""Differences of two means in sds."""
SD_WARN, SD_FAIL = 1.25, 1.5
"""Ratios of two sds, whichever is larger."""
FEW_INDEPENDENT = 200
"""Independent draws below which a comparison of posteriors warns."""
ALIKE_ELPD = 4.0
"""Difference of elpd below which two models predict alike (Sivula et al. 2020, doi:10.48550/arXiv.2008.10296)."""
MODE_P, MODE_SHARE, MODE_DEPTH = 0.01, 0.05, 0.7
"""p below which there are two modes, share of the draws that each holds, and density in the valley over the lower
peak's."""

# Simulations and data.
FAILED_WARN, FAILED_FAIL = 0.01, 0.2
"""Share of failed simulations from which a report warns and fails; what uses the others warns above the second."""
OUTSIDE_PRIOR = 0.5
"""Percentile of the prior predictive, from either end, beyond which one feature is outside."""
OUTSIDE_SHARE = 0.2
"""Share of features outside the prior predictive above which the recording is."""
OUTSIDE_POSTERIOR = 2.5
"""Percentile of the posterior predictive, from either end, beyond which one feature is outside."""
UNPREDICTED_WARN, UNPREDICTED_FAIL = 0.2, 0.5
"""Share of features outside the posterior predictive above which prediction warns and fails."""
OVERFIT = 1.0
"""Nats by which a network may fit its training draws better than held-out ones."""
INTERVAL = 0.9
"""Credibility of the interval whose coverage a recovery study counts."""
