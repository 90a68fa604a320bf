"""Random problems for The Virtual Brain and vbinfer, and how each runs them (needs tvb-library)."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import vbinfer as vb

pytest.importorskip("tvb", reason="tvb-library is not installed: make test-parity")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tvb.datatypes import connectivity
    from tvb.simulator import coupling as tvb_coupling
    from tvb.simulator import history, monitors, simulator
    from tvb.simulator import models as tvb_models

DT = 0.04
SPEED = 2.5
STEPS = 60


@pytest.fixture(autouse=True)
def double_precision(monkeypatch):
    """Weights and past of TVB in float64, as everything else in it; and ours."""
    stores = (history.BaseHistory, history.DenseHistory, history.SparseHistory)
    for array in {id(a): a for kind in stores for a in vars(kind).values() if isinstance(a, history.NDArray)}.values():
        if array.dtype == "f":
            monkeypatch.setattr(array, "dtype", "d")
    with jax.enable_x64(True):
        yield


class Problem(NamedTuple):
    """A directed network, and a model with parameters and states of its own in every node."""

    weights: np.ndarray
    lengths: np.ndarray
    params: dict[str, np.ndarray]
    x0: np.ndarray
    """`[V, N]`"""


class Member(NamedTuple):
    """Where a model is tried."""

    state: list[tuple[float, float]]
    """Range of the initial state of each variable."""
    natural: tuple[str, dict[str, float]]
    strength: float = 0.05
    """Of the linear coupling."""
    params: dict[str, float] = {}  # noqa: RUF012
    """Parameters whose default leaves part of the model out."""
    fixed: tuple[str, ...] = ()
    """Parameters that keep their value in all nodes."""


SIGMOIDAL = ("Sigmoidal", {"cmin": -0.3, "cmax": 0.4, "midpoint": 0.1, "a": 1.3, "sigma": 0.7})
TANH = ("HyperbolicTangent", {"a": 0.04, "b": 1.2, "midpoint": 0.2, "sigma": 0.8})
MODELS = {
    "Linear": Member([(-1, 2)], TANH, 0.5),
    "MontbrioPazoRoxin": Member([(0.0, 0.6), (-2, 1)], SIGMOIDAL, 0.6, {"I": 0.2}),
    "ReducedWongWang": Member([(0.05, 0.9)], TANH, 0.2),
    "Kuramoto": Member([(-3, 3)], ("Kuramoto", {"a": 0.3}), 0.02),
    "JansenRit": Member(
        [(0, 0.2), (5, 25), (3, 20), (-0.02, 0.02), (-0.5, 0.5), (-0.3, 0.3)],
        ("SigmoidalJansenRit", {"cmin": 0.0005, "cmax": 0.006, "midpoint": 5.0, "r": 0.5, "a": 20.0}),
        0.01,
    ),
    "WilsonCowan": Member(
        [(0.05, 0.7), (0.05, 0.6)], SIGMOIDAL, 0.8, {"P": 0.6, "Q": 0.2, "theta_e": 0.1, "theta_i": 0.2}
    ),
    "SupHopf": Member([(-0.6, 0.8), (-0.6, 0.6)], TANH, 0.1),
    "Generic2dOscillator": Member([(-1, 2), (-1, 3)], SIGMOIDAL, 0.5, {"I": 0.3, "c": 0.4, "g": 0.2}),
    "CoombesByrne2D": Member([(0.05, 0.9), (-1, 1)], TANH, 0.4),
    "Epileptor": Member(
        [(-1.9, 0.5), (-14, 1), (1.8, 4.2), (-1.1, 0.6), (0, 1), (-0.2, 0.3)],
        TANH,
        0.2,
        {"Kvf": 0.8, "Kf": 0.5, "Ks": -0.4, "slope": 0.3},
    ),
    "Epileptor2D": Member([(-1.9, 0.8), (-1, 5)], TANH, 0.2, {"Kvf": 0.8, "Ks": -0.4, "slope": 0.3}),
    "ReducedWongWangExcInh": Member([(0.05, 0.9), (0.01, 0.3)], TANH, 0.3, {"lamda": 0.4, "I_ext": 0.03}),
    "LarterBreakspear": Member(
        [(-0.4, 0.3), (0.1, 0.7), (-0.2, 0.4)],
        ("HyperbolicTangent", {"a": 0.4, "b": 1.1, "midpoint": 0.1, "sigma": 0.6}),
        0.3,
        {"C": 0.3, "VT": 0.05, "ZT": -0.1},
    ),
    "ZerlautAdaptationFirstOrder": Member(
        [(0.001, 0.04), (0.001, 0.05), (0, 120), (0, 5), (-1e-3, 1e-3)],
        ("HyperbolicTangent", {"a": 0.002, "b": 30.0, "midpoint": 0.2, "sigma": 0.8}),
        0.05,
        {
            "K_ext_i": 10.0,
            "a_i": 1.0,
            "b_i": 2.0,
            "external_input_ex_ex": 2e-3,
            "external_input_ex_in": 1e-3,
            "external_input_in_ex": 1.5e-3,
            "external_input_in_in": 0.5e-3,
        },
        ("P_e", "P_i"),
    ),
    "DecoBalancedExcInh": Member([(0.05, 0.9), (0.01, 0.3)], TANH, 0.3, {"lamda": 0.4, "I_ext": 0.03, "M_i": 1.3}),
    "GastSchmidtKnosche_SF": Member(
        [(0.0, 0.5), (-2.0, 0.0), (0.0, 0.5), (-0.2, 0.2)], SIGMOIDAL, 0.6, {"J": 15.0, "I": 0.2}
    ),
    "GastSchmidtKnosche_SD": Member(
        [(0.0, 0.5), (-2.0, 0.0), (0.0, 0.5), (-0.2, 0.2)],
        SIGMOIDAL,
        0.6,
        {"alpha": 0.5, "J": 15.0, "eta": -6.0, "I": 0.2},
    ),
}


def deco(M_i: Any = 1.0, **params: Any) -> vb.AbstractVectorField:
    """M (a x - b) is (M a) x - (M b)."""
    scaled = {k: M_i * params[k] for k in ("a_e", "b_e", "a_i", "b_i") if k in params}
    return vb.models.ReducedWongWangExcInh(**params | scaled)


OURS = {
    "DecoBalancedExcInh": deco,
    "GastSchmidtKnosche_SF": vb.models.GastSchmidtKnosche,
    "GastSchmidtKnosche_SD": partial(vb.models.GastSchmidtKnosche, adaptation="synaptic-depression"),
}
"""Models of another name here."""
WHOLE = ("N_tot", "K_ext_e", "K_ext_i")
"""Integers in TVB."""
RENAMED = {"Linear": {"a": "G", "b": "offset"}, "Difference": {"a": "G"}, "Kuramoto": {"a": "G"}}


def made(name: str) -> Callable[..., vb.AbstractVectorField]:
    """What makes our counterpart of a model of TVB."""
    return OURS.get(name) or getattr(vb.models, name)


def problem(name: str, n: int, delayed: bool, seed: int = 0) -> Problem:
    """Directed, with holes, connections of a node to itself, unequal lengths, and lags up to 30 steps."""
    rng = np.random.default_rng([seed, n, len(name), ord(name[0]), delayed])
    weights = rng.gamma(1.5, 0.4, (n, n)) * (rng.random((n, n)) < 0.7)
    lengths = rng.uniform(0.0, 3.0, (n, n)) if delayed else np.zeros((n, n))
    lengths[rng.random((n, n)) < 0.1] = 0.0
    member, leaves = MODELS[name], vb.paths(made(name)())
    params = {}
    for path, leaf in leaves.items():
        if path not in member.fixed and not (name == "MontbrioPazoRoxin" and path == "cv"):
            params[path] = member.params.get(path, np.asarray(leaf.value, float)) * rng.uniform(0.9, 1.1, n)
    params = {k: np.clip(v, leaves[k].low, leaves[k].high) for k, v in params.items()}
    params |= {k: v * rng.uniform(0.9, 1.1, n) for k, v in member.params.items() if k not in leaves}
    params = {k: np.rint(v) if k in WHOLE else v for k, v in params.items()}
    low, high = np.array(member.state, float).T
    x0 = rng.uniform(low[:, None], high[:, None], (len(low), n))
    if name == "Epileptor":
        x0[:3, 0] = -1.6, -14.0, -0.4  # z below zero is drawn back by its seventh power
    return Problem(weights, lengths, params, x0)


def couplings(name: str, kind: str) -> tuple[Any, Any]:
    """The same coupling function of TVB and of ours."""
    if kind == "natural":
        kind, options = MODELS[name].natural
    else:
        options = {"a": MODELS[name].strength} | ({"b": 0.01} if kind == "Linear" else {})
    theirs = getattr(tvb_coupling, kind)(**{k: np.array([v]) for k, v in options.items()})
    renamed = RENAMED.get(kind, {})
    return theirs, getattr(vb.coupling, kind)(**{renamed.get(k, k): v for k, v in options.items()})


def theirs(name: str, given: Problem, coupling: Any, integrator: Any, **parts: Any) -> Any:
    """A configured simulator of TVB; `past` is an initial history `[H, V, N]`, `observed` what its monitors see."""
    n = len(given.weights)
    model = getattr(tvb_models, name)(**{k: v.astype(int) if k in WHOLE else v for k, v in given.params.items()})
    model.variables_of_interest = parts.pop("observed", tuple(model.state_variables))
    # as many rows as it keeps: fewer are filled up at random
    past = parts.pop("past", np.repeat(given.x0[None], horizon(given, integrator.dt), axis=0))
    network = connectivity.Connectivity(
        weights=given.weights,
        tract_lengths=given.lengths,
        region_labels=np.array([f"n{i}" for i in range(n)]),
        centres=np.zeros((n, 3)),
        speed=np.array([SPEED]),
        cortical=np.ones(n, bool),
        orientations=np.eye(3)[np.arange(n) % 3],
    )
    sim = simulator.Simulator(
        model=model,
        connectivity=parts.pop("connectivity", network),
        conduction_speed=SPEED,
        coupling=coupling,
        integrator=integrator,
        initial_conditions=past[..., None].copy(),
        **({"monitors": [monitors.Raw()]} | parts),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sim.configure()
    return sim


def horizon(given: Problem, dt: float) -> int:
    return int(np.rint(given.lengths / SPEED / dt).max()) + 1


def trajectory(sim: Any, steps: int = STEPS) -> np.ndarray:
    """`[T, V, N]` of a simulator of TVB that records every step."""
    return np.array([output[0][1][:, :, 0] for output in sim(n_steps=steps)])


def ours(name: str, given: Problem, coupling: Any, integrator: Any, **parts: Any) -> vb.Simulator:
    parts = {"model": made(name)(**given.params)} | parts if "model" not in parts else parts
    return vb.Simulator(
        parts.pop("model"),
        vb.Connectome(given.weights, given.lengths, SPEED),
        coupling=coupling,
        integrator=integrator,
        **({"delays": vb.Delays()} if given.lengths.any() else {}) | parts,
    )


def run(sim: vb.Simulator, init: Any, steps: int = STEPS, **options: Any) -> np.ndarray:
    """`[T, V, N]` of ours."""
    init = init if isinstance(init, vb.History) else sim.model.State(*init)
    y = vb.simulate(sim, t1=steps * sim.dt, key=None, init=init, **options).ys["raw"]
    return np.stack([y[v] for v in sim.model.variables()], axis=1)


def deviation(y: np.ndarray, reference: np.ndarray) -> float:
    """Largest error of a trajectory `[T, V, N]`, relative to the largest value of each state variable."""
    scale = np.abs(reference).max(axis=(0, 2))
    return (np.abs(y - reference).max(axis=(0, 2)) / np.where(scale == 0.0, 1.0, scale)).max()


def normals(seed: int, steps: int, x0: np.ndarray) -> np.ndarray:
    """What TVB draws with this seed, `[T, V, N]`."""
    return np.random.RandomState(seed).normal(size=(steps, *x0.shape))


def sampled(sim: Any, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Times and values of each monitor of a simulator of TVB."""
    outputs = list(sim(n_steps=steps))
    kept = [[output[k] for output in outputs if output[k] is not None] for k in range(len(sim.monitors))]
    return [(np.array([t for t, _ in k]), np.array([y for _, y in k])[..., 0]) for k in kept]
