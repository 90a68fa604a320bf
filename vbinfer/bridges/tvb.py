"""Simulators of The Virtual Brain as simulators of vbinfer.

Everything is read off the objects of TVB, by the names of their classes: TVB itself is never imported.
"""

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from vbinfer import models
from vbinfer._param import Param, Parametrised, did_you_mean, param
from vbinfer.fields import Cortex, Field, Local, Mesh, RegionMap
from vbinfer.integrators import AbstractIntegrator, Euler, Heun, RungeKutta4
from vbinfer.models.base import AbstractModel, AbstractVectorField
from vbinfer.monitors import (
    EEG,
    HRF,
    MEG,
    SEEG,
    AbstractMonitor,
    Raw,
    SpatialAverage,
    Subsample,
    TimeAverage,
    TvbVolterraKernel,
)
from vbinfer.network import coupling
from vbinfer.network.connectome import Connectome
from vbinfer.network.coupling import AbstractCoupling
from vbinfer.network.delays import Delays
from vbinfer.noise import AbstractNoise, Additive, Multiplicative
from vbinfer.simulation.simulator import Simulator

_NEEDED = {
    "model": "models.MontbrioPazoRoxin()",
    "connectivity": 'connectivity.Connectivity.from_file("connectivity.zip")',
    "integrator": "integrators.HeunStochastic(dt=0.1)",
}
_REFUSED = {
    "stimulus": "TVB adds it to the rates of model.stvar and holds it over a step, vb.stimuli enters beside the "
    "coupling at every stage; set simulator.stimulus = None, and give vb.Simulator the parts of what comes back and "
    "stimulus=vb.stimuli.Pulse(...)",
}

_MODELS = {
    name: kind
    for name in dir(models)
    if isinstance(kind := getattr(models, name), type)
    and issubclass(kind, AbstractVectorField)
    and name != "AbstractVectorField"
}
_MODELS |= dict.fromkeys(("GastSchmidtKnosche_SF", "GastSchmidtKnosche_SD"), models.GastSchmidtKnosche)
_MODELS["DecoBalancedExcInh"] = models.ReducedWongWangExcInh
_GAINS = {"DecoBalancedExcInh": ("M_i", ("a_e", "b_e", "a_i", "b_i"))}
"""A parameter of TVB that multiplies several of vbinfer's: M (a x - b) is (M a) x - (M b)."""
_FORMS = {
    "GastSchmidtKnosche_SF": {"adaptation": "spike-frequency"},
    "GastSchmidtKnosche_SD": {"adaptation": "synaptic-depression"},
    "ReducedSetFitzHughNagumo": {"form": "tvb"},
    "ReducedSetHindmarshRose": {"form": "tvb"},
}
"""What vbinfer has as an option of a model."""
_UNUSED = {
    "MontbrioPazoRoxin": ("Gamma",),
    "ReducedWongWang": ("sigma_noise",),
    "JansenRit": ("p_min", "p_max"),
    "Epileptor": ("s",),
}
"""Parameters that TVB declares and does not use."""

_COUPLINGS: dict[str, tuple[type, dict[str, str]]] = {
    "Linear": (coupling.Linear, {"G": "a", "offset": "b"}),
    "Scaling": (coupling.Linear, {"G": "a"}),
    "Difference": (coupling.Difference, {"G": "a"}),
    "Kuramoto": (coupling.Kuramoto, {"G": "a"}),
    "Sigmoidal": (coupling.Sigmoidal, {}),
    "SigmoidalJansenRit": (coupling.SigmoidalJansenRit, {}),
    "HyperbolicTangent": (coupling.HyperbolicTangent, {}),
}
"""The class here, and TVB's names for parameters that it calls otherwise."""

_LOCAL = {
    "Generic2dOscillator": "V",
    "Linear": "x",
    "ReducedWongWang": "S",
    "ReducedWongWangExcInh": "S_e",
    "SupHopf": "x",
}
"""What TVB's local connectivity reads, of models to which it adds beside the long-range coupling."""
_LINEAR = (coupling.Linear, coupling.Difference)
_INTEGRATORS: dict[str, Callable[[float], AbstractIntegrator]] = {
    "EulerDeterministic": Euler,
    "EulerStochastic": Euler,
    "HeunDeterministic": partial(Heun, frozen_coupling=True),
    "HeunStochastic": partial(Heun, frozen_coupling=True),
    "RungeKutta4thOrderDeterministic": partial(RungeKutta4, frozen_coupling=True),
}


def from_tvb(simulator: Any) -> Simulator:
    """A TVB simulator as a `vb.Simulator` with the same trajectories.

    Model, connectivity, coupling, delays, integrator, noise and monitors; `simulator`, configured or not, stays as it
    is. What vbinfer does not have is an error that names it.

    - The integrator holds the coupling over a step, as TVB does (`frozen_coupling=True`).
    - The speed is that of `connectivity.speed`, the one that TVB's delays follow.
    - `nsig` is D: sigma = sqrt(2 D); state variables without noise get none. TVB's own normals can be handed to
      `vb.simulate(noise_path=)`; a key gives others.
    - Monitors are named after their class, `"raw"`, `"temporal_average"`, `"bold"`, in their order, a second one of a
      kind `"bold_2"`. Where a monitor records one variable and TVB's several, each has its own: `"bold_r"`, `"bold_V"`.
      Samples are TVB's; `ts` are the ends of periods, where TVB gives the middle for averages.
    - A variable of interest such as `x2 - x1` is recorded by `EEG` with a gain of ones, a signal for each node.
    - A surface becomes a `vb.fields.Field`: vertices and, as points, the regions that are not on it; the local
      connectivity times `coupling_strength`; plain means of regions. Its nodes are in TVB's order.
    - Models of several modes record the sum over the modes, `[T, N]`.
    - M_i of `DecoBalancedExcInh` multiplies gains and thresholds of `ReducedWongWangExcInh`, its equations otherwise.
    - Initial conditions are not taken over. `[time, variable, node, mode]` of TVB is
      `init=vb.History(sim.model.State(*conditions[..., 0].swapaxes(0, 1)))`, and its last row alone
      `init=sim.model.State(*conditions[-1, ..., 0])`. Models of several modes take all of `conditions`.

    Args:
        simulator: a `tvb.simulator.simulator.Simulator`.

    Raises:
        ValueError: no model, connectivity or integrator; a stimulus; a surface whose local connectivity is not made
            yet or enters its model otherwise; a part, an option of a part, bounds
            or a variable of interest that vbinfer does not have.

    Example:
        sim = vb.bridges.from_tvb(template)
        prior = vb.Prior({"coupling.G": dist.Uniform(0.1, 1.2)})
    """
    for part, example in _NEEDED.items():
        if getattr(simulator, part, None) is None:
            given = type(simulator).__name__
            raise ValueError(f"{given} was given, without {part}; from_tvb takes a Simulator of TVB, {part}={example}")
    for part, why in _REFUSED.items():
        if (given := getattr(simulator, part, None)) is not None:
            raise ValueError(f"the {part} of TVB's simulator, {type(given).__name__}, is not carried over: {why}")
    # as TVB completes them, without a change to what was given; its own copies leave out what is not declared
    simulator = copy.copy(simulator)
    simulator.connectivity = network = copy.copy(simulator.connectivity)
    network.configure()
    field = _field(simulator, network)
    regions = None if field is None else np.asarray(field.regions.regions)
    model = _model(simulator.model, regions)
    _check_bounds(simulator.integrator, simulator.model)
    weights, lengths = np.asarray(network.weights), np.asarray(network.tract_lengths)
    n = len(weights) if regions is None else len(regions)
    speed = float(np.ravel(network.speed)[0])
    return Simulator(
        model,
        # an infinite speed is a network without delays
        Connectome(
            weights,
            lengths,
            speed if np.isfinite(speed) else 3.0,
            _some(network, "region_labels"),
            _some(network, "centres"),
        ),
        coupling=_coupling(simulator),
        integrator=_known(simulator.integrator, "integrator", _INTEGRATORS)(float(simulator.integrator.dt)),
        noise=_noise(getattr(simulator.integrator, "noise", None), model.variables(), n, regions),
        delays=Delays() if (lengths / speed)[weights != 0.0].any() else None,
        monitors=_monitors(simulator, n),
        field=field,
    )


def _field(simulator: Any, network: Any) -> Field | None:
    """The simulator's surface, with regions and local connectivity."""
    surface = getattr(simulator, "surface", None)
    if surface is None:
        return None
    kind, local = type(simulator.model).__name__, getattr(surface, "local_connectivity", None)
    if local is None or local.matrix is None or local.matrix.shape[0] == 0:
        raise ValueError(
            "the surface has no local connectivity yet, TVB makes it of distances; simulator.configure() first"
        )
    if kind not in _LOCAL:
        raise ValueError(
            f"the local connectivity of a surface enters {kind} of TVB otherwise than beside the long-range coupling; "
            f"it is carried over for {', '.join(_LOCAL)}"
        )
    mapping = surface.region_mapping_data
    mesh, on_surface = mapping.surface, np.asarray(mapping.array_data)
    # regions without vertices are nodes of their own, after the vertices
    others = np.setdiff1d(np.arange(len(network.weights)), on_surface)
    cortex = Mesh(np.asarray(mesh.vertices), np.asarray(mesh.triangles))
    n = len(on_surface) + len(others)
    matrix = scipy.sparse.csr_matrix(local.matrix)
    matrix.resize((n, n))
    regions, strength = np.concatenate([on_surface, others]), np.ravel(surface.coupling_strength)
    if len(strength) > 1:  # of the receiver; points have no local connectivity
        strength = np.pad(strength, (0, n - len(strength)))
    if kind == "Generic2dOscillator":  # gamma scales the long-range coupling alone in TVB, and row 0 of c here
        strength = strength / _at_nodes(np.ravel(simulator.model.gamma), regions)
    return Field(
        Cortex([cortex], points=np.asarray(network.centres)[others]) if len(others) else cortex,
        Local(matrix),
        strength[0] if len(strength) == 1 else strength,
        sends=_LOCAL[kind],
        regions=RegionMap(regions),
    )


def _known(part: Any, what: str, table: Mapping[str, Any]) -> Any:
    """What the table has for TVB's class."""
    name, module = type(part).__name__, type(part).__module__
    if module.partition(".")[0] != "tvb":
        raise ValueError(f"the {what} is {module}.{name}, no class of TVB: what it computes is not known here")
    if name not in table:
        raise ValueError(f"vbinfer has no {what} {name}, which this simulator of TVB has. {did_you_mean(name, table)}")
    return table[name]


def _some(part: Any, name: str) -> Any:
    """An array of TVB's, or None where there is none."""
    values = getattr(part, name, None)
    return None if values is None or len(values) == 0 else values


def _values(kind: type, part: Any, renamed: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a class, from arrays of TVB.

    One value is a number, one for each node is `[N]`; a switch is the same for all nodes.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = getattr(part, renamed.get(field.name, field.name), None)
        if not isinstance(value, np.ndarray) or field.name == "cvar":
            continue
        flat = value.ravel()
        if value.dtype == bool and len(set(flat.tolist())) > 1:
            raise ValueError(f"{kind.__name__}.{field.name} differs between nodes; vbinfer has one for all nodes")
        found[field.name] = bool(flat[0]) if value.dtype == bool else flat[0] if flat.size == 1 else flat
    return found


def _at_nodes(values: Any, regions: np.ndarray | None) -> Any:
    """Values of regions `[..., R]` at a surface's nodes."""
    wide = regions is not None and np.ndim(values) and np.shape(values)[-1] == regions.max() + 1
    return np.asarray(values)[..., regions] if wide else values


def _model(model: Any, regions: np.ndarray | None) -> AbstractModel:
    kind = _known(model, "model", _MODELS)
    values = {name: _at_nodes(value, regions) for name, value in _values(kind, model, {}).items()}
    default, unused = type(model)(), _UNUSED.get(kind.__name__, ())
    gain, scaled = _GAINS.get(type(model).__name__, ("", ()))
    values |= {name: values[name] * getattr(model, gain).squeeze() for name in scaled}
    for name in sorted(set(type(model).declarative_attrs) - {*values, *unused, gain}):
        value = getattr(model, name)
        if isinstance(value, np.ndarray) and not np.array_equal(value.ravel(), getattr(default, name).ravel()):
            raise ValueError(f"{kind.__name__}.{name} is {value.ravel()} in TVB; vbinfer has no such parameter")
    if np.any(values.get("cv", 0.0)):  # the row of V costs a second product with the weights
        values["cvar"] = ("r", "V")
    return kind(**values, **_FORMS.get(type(model).__name__, {}))


def _coupling(simulator: Any) -> AbstractCoupling:
    kind, renamed = _known(simulator.coupling, "coupling", _COUPLINGS)
    values, model = _values(kind, simulator.coupling, renamed), simulator.model
    if getattr(model, "number_of_modes", 1) > 1 and (kind not in _LINEAR or np.any(values.get("offset", 0.0))):
        raise ValueError(
            f"TVB couples the modes of {type(model).__name__} one by one, vbinfer their sum; the same only with "
            f"Linear(b=0), Scaling or Difference, not with {type(simulator.coupling).__name__}({values})"
        )
    return kind(**values)


def _check_bounds(integrator: Any, model: Any) -> None:
    """Raise ValueError for bounds of the user's own."""
    for part in (model, integrator) if type(model).state_variable_boundaries is None else ():
        if part.state_variable_boundaries is not None:
            kind = type(model).__name__
            raise ValueError(f"state_variable_boundaries is set; {kind} has no bounds in vbinfer, nor in TVB by itself")
    if integrator.clamped_state_variable_values is not None:
        raise ValueError("integrator.clamped_state_variable_values is set; vbinfer does not hold state variables")


def _additive(noise: Any, D: dict[str, Any]) -> Additive:
    return Additive(D=noise.nsig.item() if noise.nsig.size == 1 else D)


def _noise(noise: Any, variables: tuple[str, ...], n: int, regions: np.ndarray | None) -> AbstractNoise | None:
    """The noise process; None where nothing is random."""
    if noise is None:
        return None
    make = _known(noise, "noise", {"Additive": _additive, "Multiplicative": _multiplicative})
    if noise.ntau > 0.0:
        raise ValueError(
            f"the noise has ntau={noise.ntau:g}; TVB's coloured noise is not carried over. Set ntau=0.0, or build "
            "vb.Simulator(..., noise=vb.noise.Coloured(sigma, tau)) of the parts"
        )
    nsig = np.asarray(noise.nsig, float)
    if nsig.ndim == 3:  # as a configured simulator has it: [variable, node, mode]
        nsig = nsig[..., 0]
    elif nsig.shape == (len(variables),):
        nsig = nsig[:, None]
    rows = dict(zip(variables, np.broadcast_to(_at_nodes(nsig, regions), (len(variables), n)), strict=True))
    driven = {name: row if np.ptp(row) else row[0] for name, row in rows.items() if row.any()}
    return make(noise, driven) if driven else None


class LinearAmplitude(Parametrised):
    """An amplitude linear in the state, of TVB's noise.

    g(x) = sqrt(2 D) (a x + b)
    """

    D: dict[str, Param] = param(low=0.0, doc="TVB's nsig")
    a: Param = param(doc="amplitude per state")
    b: Param = param(doc="amplitude at zero")

    def __call__(self, x: Any) -> dict[str, Any]:
        return {name: jnp.sqrt(2.0 * D) * (self.a * getattr(x, name) + self.b) for name, D in self.D.items()}


def _multiplicative(noise: Any, D: dict[str, Any]) -> Multiplicative:
    _known(noise.b, "b of Multiplicative noise", {"Linear": None})
    return Multiplicative(LinearAmplitude(D, **noise.b.parameters))


def _bold(monitor: Any, var: str, period: float, n: int) -> HRF:
    _known(monitor.hrf_kernel, "hrf_kernel of Bold", {"FirstOrderVolterra": None})
    if monitor.hrf_length < 20_000.0:
        raise ValueError(f"Bold.hrf_length is {monitor.hrf_length:g} ms; vbinfer cuts nothing off, give at least 20000")
    given = monitor.hrf_kernel.parameters
    kernel = TvbVolterraKernel(tau_s=given["tau_s"], tau_f=given["tau_f"], k1=given["k_1"], V0=given["V_0"])
    return HRF(var, period, kernel, step=4.0)


def _sensors(kind: type, monitor: Any, var: str, period: float, n: int) -> AbstractMonitor:
    if monitor.obsnoise is not None:
        raise ValueError(
            f"{type(monitor).__name__}.obsnoise is {type(monitor.obsnoise).__name__}; set it to None, and add noise of "
            "the measurement with vb.ForwardModel(observe=...)"
        )
    reference = getattr(monitor, "reference", None)
    options = {"reference": "average" if reference.lower() == "average" else reference} if reference else {}
    return kind(monitor.gain, _sources(var), period, labels=monitor.sensors.labels, **options)


def _sources(expression: str) -> dict[str, float]:
    """The weight of each variable in a sum or difference."""
    if not re.fullmatch(r"\s*-?\s*[^\W\d]\w*(\s*[+-]\s*[^\W\d]\w*)*\s*", expression):
        raise ValueError(f"the variable of interest {expression!r} is no sum or difference of state variables")
    weights: dict[str, float] = {}
    for sign, name in re.findall(r"([+-]?)\s*(\w+)", expression):
        weights[name] = weights.get(name, 0.0) + (-1.0 if sign == "-" else 1.0)
    return weights


def _combined(monitor: Any, var: str, period: float, n: int) -> EEG:
    """A sum of variables, node by node."""
    return EEG(gain=np.eye(n), var=_sources(var), period=period)


_MONITORS: dict[str, Callable[[Any, Any, float, int], AbstractMonitor]] = {
    "Raw": lambda monitor, var, period, n: Raw(var),
    "RawVoi": lambda monitor, var, period, n: Raw(var),
    "SubSample": lambda monitor, var, period, n: Subsample(period=period, var=var),
    "TemporalAverage": lambda monitor, var, period, n: TimeAverage(period=period, var=var),
    "SpatialAverage": lambda monitor, var, period, n: SpatialAverage(var, monitor.spatial_mean, period),
    "GlobalAverage": lambda monitor, var, period, n: SpatialAverage(var, np.full((1, n), 1.0 / n), period),
    "Bold": _bold,
    "EEG": partial(_sensors, EEG),
    "MEG": partial(_sensors, MEG),
    "iEEG": partial(_sensors, SEEG),
}
"""From TVB's monitor, the variable, the period and the number of nodes."""
_SEVERAL = ("Raw", "RawVoi", "SubSample", "TemporalAverage")
"""Monitors that record several variables at once."""


def _monitors(simulator: Any, n: int) -> dict[str, AbstractMonitor]:
    """Monitors in TVB's order, with the names that they get."""
    found: dict[str, AbstractMonitor] = {}
    simulator.number_of_nodes = n
    for k, given in enumerate(simulator.monitors):
        make, kind, monitor = _known(given, "monitor", _MONITORS), type(given).__name__, copy.copy(given)
        if hasattr(monitor, "gain"):  # changed in place
            monitor.gain, monitor.sensors = monitor.gain.copy(), copy.copy(monitor.sensors)
        monitor.config_for_sim(simulator)  # indices, steps and gains
        name = re.sub("(?<=[a-z])(?=[A-Z][a-z])", "_", kind).lower()
        before = sum(type(other) is type(given) for other in simulator.monitors[:k])
        name += f"_{before + 1}" if before else ""
        # TVB rounds the periods of sensors down, others to the nearest step
        period = getattr(monitor, "_period_in_steps", monitor.istep) * simulator.integrator.dt
        observed = tuple(simulator.model.variables_of_interest[v] for v in monitor.voi)
        if kind in _SEVERAL and set(observed) <= set(simulator.model.state_variables):
            found[name] = make(monitor, observed[0] if len(observed) == 1 else observed, period, n)
            continue
        if kind in ("Raw", "RawVoi", "TemporalAverage"):
            make = _combined
        for var in observed:
            suffix = re.sub(r"\W+", "_", f"_{var}") if len(observed) > 1 else ""
            found[name + suffix] = make(monitor, var, period, n)
    return found
