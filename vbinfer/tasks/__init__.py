"""Problems with known posteriors, for measuring methods."""

from vbinfer.tasks.base import Task as Task
from vbinfer.tasks.gaussians import linear_gaussian as linear_gaussian
from vbinfer.tasks.process import ou as ou
from vbinfer.tasks.neuron import lif as lif
from vbinfer.tasks.network import brunel as brunel
from vbinfer.tasks.cells import HH_NAMES as HH_NAMES
from vbinfer.tasks.cells import hodgkin_huxley as hodgkin_huxley
from vbinfer.tasks.cells import passive_cell as passive_cell
from vbinfer.tasks.patient import vep as vep
from vbinfer.tasks.oscillator import damped_oscillator as damped_oscillator
from vbinfer.tasks.sbibm import two_moons as two_moons
from vbinfer.tasks.gaussians import gaussian_linear as gaussian_linear
from vbinfer.tasks.gaussians import gaussian_linear_uniform as gaussian_linear_uniform
from vbinfer.tasks.gaussians import gaussian_mixture as gaussian_mixture
from vbinfer.tasks.sbibm import slcp as slcp
from vbinfer.tasks.sbibm import bernoulli_glm as bernoulli_glm
from vbinfer.tasks.sbibm import bernoulli_glm_raw as bernoulli_glm_raw
from vbinfer.tasks.distractors import slcp_distractors as slcp_distractors
from vbinfer.tasks.dynamics import sir as sir
from vbinfer.tasks.dynamics import lotka_volterra as lotka_volterra
from vbinfer.tasks.published import Reference as Reference
from vbinfer.tasks.published import reference as reference
