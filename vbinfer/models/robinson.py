"""The corticothalamic loop."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class RobinsonState(NamedTuple):
    """Cortical field and potentials with their derivatives, each `[N]`.

    phi, dphi: firing that the cortex sends, 1/ms; V_e, V_r, V_s: potentials of cortex, reticular nucleus and relay
    nuclei, mV, with dV_e, dV_r, dV_s, mV/ms.
    """

    phi: Array
    dphi: Array
    V_e: Array
    dV_e: Array
    V_r: Array
    dV_r: Array
    V_s: Array
    dV_s: Array


class Robinson(AbstractVectorField):
    """Cortex, reticular nucleus and relay nuclei in a delayed loop.

    Robinson et al. 2002; Breakspear et al. 2006.

    phi'' / gamma^2 + 2 phi' / gamma + phi = S(V_e)
    L V_e = nu_ee phi + nu_ei S(V_e) + nu_es S(c_1) + nu_ee c_2
    L V_r = nu_re c_0 + nu_rs S(V_s)
    L V_s = nu_se c_0 + nu_sr S(V_r) + P + u
    L = 1 / (alpha beta) d^2/dt^2 + (1 / alpha + 1 / beta) d/dt + 1
    S(V) = Q_max / (1 + exp(-pi (V - theta) / (sqrt(3) sigma)))

    The delay t_0 / 2 = 40 ms between cortex and thalamus is one of the network: rows c_0 and c_1 are phi and V_s of the
    node itself, t_0 / 2 ago, through a first projection from each node to itself. A second one, if there is one, is
    between cortices; of it phi is read (c_2), in place of the field's spread over the cortical sheet:

        loop = vb.Connectome(np.eye(n), 40.0 * np.eye(n), speed=1.0)
        vb.Simulator(Robinson(), {"loop": loop, "cortex": C}, coupling={"loop": Linear(1.0), "cortex": Linear(G)},
                     delays={"loop": vb.Delays(), "cortex": vb.Delays()}, ...)

    Inhibition is local, V_i = V_e. Noise belongs on dV_s, where P adds alpha beta P. Values are those of the 2002 paper
    in ms, sigma = 6 mV among them; other work writes sigma' = sqrt(3) sigma / pi = 3.3 mV. P, the mean of nu_sn phi_n,
    is set by the state of arousal. There is no spatial derivative of phi.

    doi:10.1103/PhysRevE.65.041924, doi:10.1093/cercor/bhj072
    """

    State: ClassVar = RobinsonState
    rows: ClassVar[int | None] = 4
    Q_max: Param = param(0.25, unit="1/ms", low=0.0, doc="highest firing rate")
    theta: Param = param(15.0, unit="mV", doc="potential at half of the highest rate")
    sigma: Param = param(6.0, unit="mV", low=1e-6, doc="standard deviation of firing thresholds")
    alpha: Param = param(0.05, unit="1/ms", low=1e-6, doc="decay rate of synapses and dendrites")
    beta: Param = param(0.2, unit="1/ms", low=1e-6, doc="rise rate of synapses and dendrites")
    gamma: Param = param(0.1, unit="1/ms", low=1e-6, doc="damping rate of the cortical field")
    nu_ee: Param = param(1200.0, unit="mV ms", doc="cortex to cortex, excitatory")
    nu_ei: Param = param(-1800.0, unit="mV ms", doc="cortex to cortex, inhibitory")
    nu_es: Param = param(1200.0, unit="mV ms", doc="relay nuclei to cortex")
    nu_re: Param = param(400.0, unit="mV ms", doc="cortex to reticular nucleus")
    nu_rs: Param = param(200.0, unit="mV ms", doc="relay nuclei to reticular nucleus")
    nu_se: Param = param(1200.0, unit="mV ms", doc="cortex to relay nuclei")
    nu_sr: Param = param(-800.0, unit="mV ms", doc="reticular nucleus to relay nuclei")
    P: Param = param(1.0, unit="mV", doc="mean input to the relay nuclei, nu_sn phi_n")
    cvar: tuple[str, ...] = couples("phi", "V_s")

    def dfun(self, t: Array, x: RobinsonState, c: Array, u: Array) -> RobinsonState:
        V_e, V_r, V_s = self.nu_ee * x.phi + self.nu_ei * self._rate(x.V_e), self.nu_re * c[0], self.nu_se * c[0]
        far = c[2] if len(c) > 2 else 0.0
        V_e += self.nu_es * self._rate(c[1]) + self.nu_ee * far
        V_r += self.nu_rs * self._rate(x.V_s)
        V_s += self.nu_sr * self._rate(x.V_r) + self.P + u
        return RobinsonState(
            x.dphi,
            self.gamma**2 * (self._rate(x.V_e) - x.phi) - 2.0 * self.gamma * x.dphi,
            *self._filtered(x.V_e, x.dV_e, V_e),
            *self._filtered(x.V_r, x.dV_r, V_r),
            *self._filtered(x.V_s, x.dV_s, V_s),
        )

    def _rate(self, V: Array) -> Array:
        return self.Q_max * jax.nn.sigmoid(jnp.pi / 3.0**0.5 * (V - self.theta) / self.sigma)

    def _filtered(self, V: Array, dV: Array, drive: Array) -> tuple[Array, Array]:
        """The second-order response of synapses and dendrites."""
        return dV, self.alpha * self.beta * (drive - V) - (self.alpha + self.beta) * dV
