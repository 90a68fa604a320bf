"""The sbi package (torch) behind the same contract."""

from vbinfer.neural.sbi.estimator import SbiEstimator as SbiEstimator
from vbinfer.neural.sbi.posteriors import SbiLikelihood as SbiLikelihood
from vbinfer.neural.sbi.posteriors import SbiPosterior as SbiPosterior
from vbinfer.neural.sbi.posteriors import SbiRatio as SbiRatio
from vbinfer.neural.sbi.views import SbiView as SbiView
