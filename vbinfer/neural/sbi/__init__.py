"""The sbi package (torch) behind the same contract: trained in z, where the prior is standard normal."""

from vbinfer.neural.sbi.estimator import SbiEstimator as SbiEstimator
from vbinfer.neural.sbi.posteriors import SbiLikelihood as SbiLikelihood
from vbinfer.neural.sbi.posteriors import SbiPosterior as SbiPosterior
from vbinfer.neural.sbi.posteriors import SbiRatio as SbiRatio
from vbinfer.neural.sbi.posteriors import SbiView as SbiView
