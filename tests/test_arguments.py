"""Every count, size, rate and probability of the public functions refuses what it cannot be, at once and by name.

Walks the signatures of `vb` and its namespaces. Whoever adds a function adds a line to `CALLS`; what a value may be
after all is in `ALLOWED`, with the reason.
"""

import inspect
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import vbinfer as vb

SPACES = (
    *("", "approximate", "densities", "densities.embeddings", "diagnostics", "features", "likelihoods", "models"),
    *("monitors", "neural", "noise", "reporting", "sampling", "stimuli", "stores", "tasks", "coupling"),
    *("cable", "explore", "fields", "measurement", "spiking"),
)
METHODS = ("sample", "sample_batch", "run_batch", "failures", "summary", "to_inference_data", "from_edges", "synthetic")
METHODS += ("icosphere", "folded", "random")
"""Of the methods, those with sizes that a user writes; readers of files and steps of the loop are left out."""

PROBABILITIES = {
    *(
        "prob",
        "hdi_prob",
        "target_accept",
        "target_ess",
        "quantile",
        "min_acceptance",
        "validation_fraction",
        "epsilon",
    ),
    *("lost",),
}
POSITIVE = {
    *("period", "t1", "dt", "decay_length", "learning_rate", "clip_norm", "window", "step", "bin", "interval", "speed"),
    *("bandwidth", "sigma", "tortuosity", "trajectory_length", "energy_variance", "segment", "lag", "smallest", "high"),
    *("spread", "capacitance", "axial_resistivity", "max_length", "d_lambda", "cutoff", "length", "radius", "rate"),
}
COUNTS = {"bins", "order", "lags", "count", "points", "n", "num", "shape", "undershoot_shape", "kernel"}
BAD = {
    "count": (0, -1, 2.5, True, math.nan, math.inf, np.zeros(0)),
    "probability": (0, -1, 2.5, True, math.nan, math.inf, np.zeros(0)),
    "positive": (0, -1, True, math.nan, math.inf, np.zeros(0)),
    "number": (True, math.nan, math.inf, np.zeros(0)),
}

KEY = jax.random.key(0)
Y = np.random.default_rng(0).normal(size=(40, 4))


class Ran(Exception):
    """The work began: the value was accepted."""


def work(*_, **__):
    raise Ran


def kind_of(parameter, label):
    """What a parameter is, by its annotation, or by its name where a converter hides the type; None for others."""
    written = re.sub(r"<class '(\w+)'>", r"\1", str(parameter.annotation))
    parts = {part.strip() for part in written.split("|")} - {"None"}
    hidden = (label.startswith(("features.", "monitors.")) and parts == {"Any"}) or "int" in parts
    if parts == {"int"} or (parameter.name in COUNTS and hidden):
        return "count"
    if parts != {"float"} and not (hidden and parameter.name in POSITIVE):
        return None
    return "probability" if parameter.name in PROBABILITIES else "positive" if parameter.name in POSITIVE else "number"


def public():
    """`(name, callable)` of everything public, each once."""
    seen = set()
    for space in SPACES:
        place = vb
        for part in filter(None, space.split(".")):
            place = getattr(place, part)
        for name in dir(place):
            one = getattr(place, name)
            if name.startswith("_") or inspect.ismodule(one) or not callable(one) or id(one) in seen:
                continue
            if not getattr(one, "__module__", "").startswith("vbinfer"):
                continue
            seen.add(id(one))
            label = f"{space}.{name}".lstrip(".")
            yield label, one
            if inspect.isclass(one):
                yield from ((f"{label}.{m}", getattr(one, m)) for m in METHODS if callable(getattr(one, m, None)))


def parameters(label, fn):
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # aliases of types
        return {}
    return {name: kind for name, p in signature.parameters.items() if (kind := kind_of(p, label)) is not None}


MADE = {
    *(
        "approximate.MapFit",
        "explore.FixedPoints",
        "neural.FitInfo",
        "neural.Round",
        "stores.StoreStatus",
        "tasks.Task",
        "Study",
    ),
    *(
        f"diagnostics.{name}"
        for name in (
            "Agreement",
            "Calibration",
            "ImportanceWeights",
            "LC2ST",
            "Loo",
            "Misspecification",
            "PosteriorSbc",
        )
    ),
    *(f"diagnostics.{name}" for name in ("PredictiveCheck", "Sbc", "Sensitivity", "Tarp")),
}
"""Results: vbinfer fills them in, nobody writes them. A `Study` is read from a file, which `study/table.py` checks."""


def made(cls, **attributes):
    """An object as it is after a fit, without the fit: sizes are looked at before anything else."""
    one = object.__new__(cls)
    for name, value in attributes.items():
        object.__setattr__(one, name, value)
    return one


class Source:
    sample = log_prob = staticmethod(work)


@pytest.fixture(scope="module")
def calls():
    """What a call needs beside the argument in question."""
    prior = vb.Prior({"a": dist.Normal(0.0, 1.0)})
    noisy = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.5), noise=vb.noise.Additive(0.1))
    sim = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.5))
    draws = vb.Draws.from_arrays({"a": np.linspace(-1.0, 1.0, 60)}, np.linspace(0.0, 1.0, 120).reshape(60, 2))
    posterior = vb.Posterior({"a": np.linspace(-1.0, 1.0, 20)[None]}, prior=prior)
    ask, mcmc = {"key": KEY}, {"prior": prior, "log_likelihood": work, "x_o": np.zeros(2), "key": KEY}
    abc = {"prior": prior, "simulator": work, "x_o": np.zeros(2), "key": KEY}
    table, source = {"shape": (20, 4)}, {"source": Source(), "draws": draws, "key": KEY}
    made_of = {"var": "x"}
    neural, sphere, cell = vb.neural, vb.fields.Sphere(4), vb.cable.Morphology(())
    net = vb.spiking.Network([vb.spiking.Layer(vb.spiking.Linear(3, 2, key=KEY), vb.spiking.LIF())])
    sampler = vb.sampling.ChainSampler(prior, work)
    proposal = {"x_o": np.zeros(2), "key": KEY}
    calls = {
        "Connectome": {"weights": np.ones((2, 2))},
        "Connectome.from_edges": {"sources": [0], "targets": [1], "weights": [1.0], "n_nodes": 2},
        "ConnectomePrior.sample": {"self": made(vb.ConnectomePrior), **ask},
        "Connectome.synthetic": {"n": 4, **ask},
        "ForwardModel": {"sim": sim, "t1": 2.0, "summary": jnp.ravel},
        "HostSimulator": {"fn": lambda theta, rng: 0.0},
        "Posterior": {"theta": {"a": np.zeros((1, 4))}},
        "Posterior.summary": {"self": posterior},
        "Posterior.to_inference_data": {"self": posterior},
        "Prior.sample": {"self": prior, **ask},
        "Draws.failures": {"self": draws, "prior": prior},
        "Simulator": {"model": vb.models.Linear(), "integrator": vb.Heun(dt=0.5)},
        "RandomField": {"phi": np.ones((4, 1)), "eigenvalues": np.zeros(1), "length": 30.0},
        "Summary": {"fc": vb.features.fc_stat},
        "calibrate": {**source},
        "load_recording": {"name": "hcp-aal2"},
        "posterior_predictive": {"posterior": posterior, "fwd": work, **ask},
        "sample_mcmc": mcmc,
        "sample_prior_predictive": {"prior": prior, "simulator": work, "n": 64, "progress": False, **ask},
        "simulate": {"sim": sim, "key": None},
        "approximate.fit_laplace": mcmc,
        "approximate.fit_map": mcmc,
        "approximate.fit_vi": mcmc,
        "approximate.pathfinder": mcmc,
        "approximate.rejection_abc": {"draws": draws, "prior": prior, "x_o": np.zeros(2)},
        "approximate.smc_abc": abc,
        "densities.Regional": {"nodes": 4},
        "densities.embeddings.Conv": table,
        "densities.embeddings.Invariant": table,
        "densities.embeddings.Recurrent": table,
        "densities.embeddings.Transformer": table,
        "diagnostics.c2st": {"a": Y, "b": Y},
        "diagnostics.coverage": source,
        "diagnostics.ecdf_band": {"n": 20},
        "diagnostics.lc2st": {**source, "x_o": np.zeros(2)},
        "diagnostics.mmd": {"a": Y, "b": Y, **ask},
        "diagnostics.posterior_sbc": {"source": Source(), "prior": prior, "simulator": work, **proposal},
        "diagnostics.sbc": source,
        "diagnostics.sensitivity": {"posterior": posterior, "fwd": work, **ask},
        "diagnostics.tarp": source,
        "features.bandpass": {"low": 0.01, "high": 0.1},
        "features.binned_information": {"y": Y},
        "features.coherence_matrix": {"y": Y, "period": 720.0},
        "features.fcd_matrix": {"y": Y, "window": 7200.0, "step": 1440.0, "period": 720.0},
        "features.hemispheres": {"pairs": "blocks"},
        "features.homotopic_mask": {"pairs": "blocks"},
        "features.lagged_matrix": {"y": Y, "lag": 720.0, "period": 720.0},
        "features.transfer_entropy_matrix": {"y": Y, "lag": 720.0, "period": 720.0},
        "features.welch": {"y": Y, "period": 720.0},
        "likelihoods.NoisePath": {"sim": noisy, "t1": 2.0},
        "likelihoods.Poisson": {"rate": work, "bin": 1.0},
        "likelihoods.SimulatedSpectrum": {"predict": work, "period": 1.0},
        "likelihoods.StatePath": {"sim": noisy, "t1": 2.0, "reference": dist.Normal(0.0, 1.0)},
        "likelihoods.SyntheticLikelihood": {"simulator": work, "n": 50, **ask},
        "likelihoods.Whittle": {"spectrum": work, "period": 1.0, "num_samples": 100},
        "likelihoods.periodogram": {"y": Y[:, 0], "period": 1.0},
        "monitors.BalloonWindkessel": {**made_of, "period": 720.0},
        "monitors.HRF": {**made_of, "period": 720.0},
        "monitors.RunningCovariance": {**made_of, "period": 720.0},
        "monitors.region_gain": {"gain": np.ones((2, 4)), "mapping": np.array([0, 0, 1, 1])},
        "monitors.seeg_gain": {"positions": np.ones((2, 3)), "centres": np.zeros((2, 3))},
        "neural.RoundsFit.sample": {
            "self": made(neural.RoundsFit, amortized=made(neural.AmortizedPosterior), x_o=np.zeros(2)),
            **proposal,
        },
        "neural.RestrictedPrior.sample": {"self": made(neural.RestrictedPrior, prior=prior), **ask},
        "neural.TruncatedPrior.sample": {"self": made(neural.TruncatedPrior, prior=prior), **ask},
        "neural.TruncatedPrior": {"prior": prior, "amortized": Source(), **proposal},
        "neural.fit_rounds": {"prior": prior, "simulator": work, **proposal},
        "neural.restrict": {"draws": draws, "prior": prior, **ask},
        "sampling.ChainSampler": {"prior": prior, "log_likelihood": work},
        "sampling.ChainSampler.sample": {"self": sampler, **proposal},
        "sampling.ChainSampler.sample_batch": {"self": sampler, "x": np.zeros((2, 2)), **ask},
        "sampling.ChainSampler.run_batch": {"self": sampler, "x": np.zeros((2, 2)), **ask},
        "stimuli.PulseTrain": {"onset": 0.0, "duration": 1.0, "interval": 5.0, "amplitude": 1.0},
        "stores.simulate_store": {"prior": prior, "simulator": work, "n": 64, "store": "nowhere", **ask},
        "tasks.Task.sample": {"self": vb.tasks.gaussian_linear(), "x_o": np.zeros(10), **ask},
        "tasks.reference": {"name": "two_moons"},
        "sweep": {"fwd": work, "grid": {"a": np.linspace(0.0, 1.0, 3)}, "progress": False, **ask},
        "fixed_points": {"sim": sim, **ask},
        "stability": {"sim": sim, "grid": {"model.gamma": [-1.0]}, **ask},
        "lyapunov": {"sim": sim, "t1": 10.0, "transient": 1.0, **ask},
        "plan": {"prior": prior, "simulators": [work, work], "budget": 1.0, **ask},
        "verify_study": {"out": "nowhere"},
        "reporting.animate_field": {"domain": sphere, "values": np.zeros((2, sphere.n_nodes)), "period": 1.0},
        "likelihoods.CrossSpectral": {"spectrum": work, "period": 1.0, "num_samples": 100},
        "likelihoods.EscapeNoise": {"neuron": work, "current": np.zeros(10), "dt": 0.1},
        "explore.adiabatic": {"sim": sim, "path": "model.gamma", "values": [-1.0, -0.5], "t1": 10.0, "transient": 5.0},
        "explore.continuation": {"sim": sim, "path": "model.gamma", "to": 0.5},
        "explore.embed": {"y": Y},
        "explore.fit_mou": {"y": Y, "period": 720.0},
        "explore.fit_mvar": {"y": Y, "period": 720.0},
        "explore.plot_phase_plane": {"sim": sim, "x": "x", "y": "x"},
        "explore.plot_bifurcations": {
            "found": vb.explore.adiabatic(sim, "model.gamma", [-1.0, -0.5], t1=10.0, transient=5.0, **ask),
            "variable": "x",
        },
        "cable.compartments": {"morphology": cell},
        "cable.compartments(capacitance)": {"morphology": cell, "d_lambda": 0.1},
        "cable.compartments(axial_resistivity)": {"morphology": cell, "d_lambda": 0.1},
        "cable.cylinder": {"length": 100.0, "radius": 1.0, "n": 3},
        "cable.single": {"length": 20.0, "radius": 10.0},
        "fields.DampedWave": {"model": None, "domain": sphere, "gamma": 0.1, "r": 10.0},
        "fields.Field": {"domain": sphere},
        "fields.Kernel": {"domain": sphere, "shape": vb.fields.Gaussian(20.0)},
        "fields.Sphere": {"lmax": 4},
        "fields.Mesh.folded": {"order": 1, "folds": 1, **ask},
        "fields.Mesh.icosphere": {"order": 1, "radius": 10.0},
        "Connectome.random": {"n": 10, "in_degree": 2, "weight": 0.1, "delay": 1.0, **ask},
        "spiking.Conv": {"in_channels": 1, "out_channels": 2, "kernel_size": 3, **ask},
        "spiking.HebbianConv": {"in_channels": 1, "out_channels": 2, "kernel_size": 3, **ask},
        "spiking.Linear": {"in_features": 3, "out_features": 2, **ask},
        "spiking.Network": {"layers": net.layers},
        "spiking.fit": {
            **{"net": net, "loss": work, "data": (np.zeros((6, 4, 3)), np.zeros(6)), "epochs": 1, "batch_size": 2},
            **{"optimizer": optax.sgd(0.1), **ask},
        },
    }
    for name in ("Posterior", "Likelihood", "Ratio"):
        one = made(getattr(neural, f"Amortized{name}"), prior=prior)
        calls[f"neural.Amortized{name}.sample"] = {"self": one, "n": 10, **proposal}
        calls[f"neural.Amortized{name}.sample_batch"] = {"self": one, "x": np.zeros((2, 2)), **ask}
    return calls


ANY = ("0", "-1", "2.5", "True", "nan", "inf", "array([], dtype=float64)")
ALLOWED = {
    # a share that may be none or the whole; nothing to warm up; the rule without its scatter, or without mirror images
    **dict.fromkeys(("sample_mcmc(num_warmup)", "sampling.ChainSampler(num_warmup)"), ("0",)),
    **dict.fromkeys(
        ("neural.AmortizedLikelihood.sample(num_warmup)", "neural.AmortizedRatio.sample(num_warmup)"), ("0",)
    ),
    "Connectome.synthetic(spread)": ("0",),
    "densities.Training(patience)": ("0",),
    # distances, not shares: as small as can be, or large
    "approximate.rejection_abc(epsilon)": ("0", "2.5"),
    "approximate.smc_abc(epsilon)": ("0", "2.5"),
    # leaves: arrays of one number, whose range is declared with them
    **dict.fromkeys(("Connectome(speed)", "Connectome.from_edges(speed)"), ("True",)),
    # said under the name that it has now
    "HostSimulator(lane)": ANY,
    # set by the simulator, which counts them; by estimators, which know the width; by samplers, which found it
    **dict.fromkeys(
        ("Delays(ahead)", "Delays(near)", "densities.embeddings.embed(width)", "Posterior(log_evidence)"), ANY
    ),
    "fields.Field(steps)": ANY,
    # a graph without edges, the icosahedron itself, constants alone; the first channel or node
    **dict.fromkeys(
        (
            "Connectome.random(in_degree)",
            "fields.Mesh.icosphere(order)",
            "fields.Mesh.folded(order)",
            "fields.Sphere(lmax)",
        ),
        ("0",),
    ),
    **dict.fromkeys(
        ("measurement.Reference(channel)", "explore.plot_phase_plane(node)", "explore.plot_bifurcations(node)"), ("0",)
    ),
    # ends of a range: infinite where there is none
    **dict.fromkeys(("param(low)", "param(high)"), ANY),
    # times of a path that JAX may trace
    **dict.fromkeys(("likelihoods.innovations(t0)", "likelihoods.transition_log_prob(t0)"), ANY),
    # the seed of another package's generator
    "diagnostics.c2st(seed)": ("0",),
    # the end of a band from 0 on, which holds no frequency: told as such
    **dict.fromkeys(("likelihoods.Whittle(high)", "likelihoods.CrossSpectral(high)"), ("0",)),
}
"""Values that are no mistake, and why."""


def refused(fn, name, value, given):
    """None, or what happened instead of a refusal that names the argument."""
    given = dict(given)
    first = [given.pop("self")] if "self" in given else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fn(*first, **{**given, name: value})
    except (ValueError, TypeError) as error:
        return None if re.search(rf"\b{name}\b", str(error)) else f"{type(error).__name__}: {str(error)[:90]}"
    except Ran:
        return "accepted"
    except Exception as error:
        return f"raw {type(error).__name__}: {str(error)[:90]}"
    return "accepted"


def test_every_count_size_rate_and_probability_is_refused_by_name(calls):
    wrong, asked = [], 0
    for label, fn in public():
        if label in MADE:
            continue
        for name, kind in parameters(label, fn).items():
            for value in BAD[kind]:
                if repr(value) in ALLOWED.get(f"{label}({name})", ()):
                    continue
                asked += 1
                found = refused(fn, name, value, calls.get(f"{label}({name})", calls.get(label, {})))
                if found:
                    wrong.append(f"{label}({name}={value!r}): {found}")
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong)
