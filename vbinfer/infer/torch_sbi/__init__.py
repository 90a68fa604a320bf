"""The sbi package (torch) behind the same contract: trained in z, where the prior is standard normal."""

from vbinfer.infer.torch_sbi.estimator import SbiEstimator as SbiEstimator
from vbinfer.infer.torch_sbi.fitted import SbiLikelihood as SbiLikelihood
from vbinfer.infer.torch_sbi.fitted import SbiPosterior as SbiPosterior
from vbinfer.infer.torch_sbi.fitted import SbiRatio as SbiRatio
from vbinfer.infer.torch_sbi.view import SbiView as SbiView
