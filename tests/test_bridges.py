"""What `vb.bridges.from_tvb` says of simulators that it cannot carry over, told by stand-ins: TVB is not needed."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.sparse

import vbinfer as vb


def stand_in(kind: str, module: str = "tvb.simulator", **attributes):
    """An object of a class of that name, without bounds."""
    bounds = {"state_variable_boundaries": None, "clamped_state_variable_values": None}
    return type(kind, (), {"__module__": module, "declarative_attrs": (), **bounds, **attributes})()


def template(**parts):
    """A TVB simulator of two nodes, as far as it is read before TVB itself is asked."""
    return SimpleNamespace(
        **{
            "model": stand_in("Linear", state_variables=["x"], gamma=np.array([-1.0])),
            "connectivity": SimpleNamespace(
                weights=np.array([[0.0, 1.0], [0.5, 0.0]]),
                tract_lengths=np.zeros((2, 2)),
                speed=np.array([3.0]),
                region_labels=np.array(["a", "b"]),
                configure=lambda: None,
                centres=np.zeros((2, 3)),
            ),
            "coupling": stand_in("Linear", a=np.array([0.1]), b=np.array([0.0])),
            "integrator": stand_in("HeunDeterministic", dt=0.1),
            "monitors": (),
            **parts,
        }
    )


MISTAKES = {
    "nothing of TVB": ({"coupling": "G"}, "dict was given, without model"),
    "no model": (template(model=None), "without model; from_tvb takes a Simulator of TVB, model=models"),
    "no connectivity": (template(connectivity=None), "without connectivity"),
    "no integrator": (template(integrator=None), "without integrator"),
    "a surface that is not configured": (
        template(surface=stand_in("Cortex", local_connectivity=None)),
        r"simulator.configure\(\) first",
    ),
    "a surface of a model with another local term": (
        template(
            model=stand_in("Kuramoto"),
            surface=stand_in("Cortex", local_connectivity=SimpleNamespace(matrix=np.eye(3))),
        ),
        "carried over for Generic2dOscillator, Linear",
    ),
    "a stimulus": (template(stimulus=stand_in("StimuliRegion")), "StimuliRegion, is not carried over"),
    "a model that is not here": (template(model=stand_in("Hopfield")), "no model Hopfield"),
    "a class of one's own": (template(model=stand_in("Linear", "__main__")), "__main__.Linear, no class of TVB"),
    "a coupling that is not here": (template(coupling=stand_in("PreSigmoidal")), "no coupling PreSigmoidal"),
    "modes that are not coupled linearly": (
        template(
            model=stand_in("Linear", number_of_modes=3), coupling=stand_in("Linear", a=np.ones(1), b=np.array([0.2]))
        ),
        r"the modes of Linear one by one",
    ),
    "other bounds": (
        template(integrator=stand_in("EulerDeterministic", state_variable_boundaries=np.array([[0.0, 1.0]]))),
        "state_variable_boundaries is set; Linear has no bounds",
    ),
    "a variable that is held": (
        template(integrator=stand_in("EulerDeterministic", clamped_state_variable_values=np.array([[0.1]]))),
        "clamped_state_variable_values is set",
    ),
    "an integrator that is not here": (template(integrator=stand_in("Dop853", dt=0.1)), "no integrator Dop853"),
    "noise that is not here": (
        template(integrator=stand_in("EulerStochastic", dt=0.1, noise=stand_in("Levy"))),
        "no noise Levy",
    ),
    "coloured noise": (
        template(integrator=stand_in("EulerStochastic", dt=0.1, noise=stand_in("Additive", ntau=5.0))),
        "ntau=5",
    ),
    "a switch that differs between nodes": (
        template(model=stand_in("WilsonCowan", state_variables=["E", "I"], shift_sigmoid=np.array([True, False]))),
        r"WilsonCowan\.shift_sigmoid differs between nodes",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_carried_over_is_named(mistake):
    given, words = MISTAKES[mistake]
    with pytest.raises(ValueError, match=words):
        vb.bridges.from_tvb(given)


def test_a_parameter_that_vbinfer_lacks_must_have_its_default():
    """With it the equations are those of vbinfer."""
    kind = type(stand_in("Linear", declarative_attrs=("delta",), delta=np.array([0.5])))
    changed = kind()
    changed.delta = np.array([[0.7], [0.2]])
    with pytest.raises(ValueError, match=r"Linear\.delta is \[0\.7 0\.2\] in TVB; vbinfer has no such parameter"):
        vb.bridges.from_tvb(template(model=changed))
    with pytest.raises(ValueError, match="no integrator Dop853"):  # so far all is well
        vb.bridges.from_tvb(template(model=kind(), integrator=stand_in("Dop853", dt=0.1)))


def test_the_bridge_imports_nothing_of_tvb():
    code = (
        "import sys, vbinfer as vb\n"
        "assert 'vbinfer.bridges.tvb' not in sys.modules\n"
        "vb.bridges.from_tvb\n"
        "assert 'vbinfer.bridges.tvb' in sys.modules\n"
        "assert not any(name == 'tvb' or name.startswith('tvb.') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("scheme", ["Euler", "Heun"])
def test_a_surface_has_tvbs_trajectory(scheme):
    """The golden run of TVB, its simulator told by stand-ins; parameters by region become those of vertices."""
    golden = np.load(Path(__file__).parent / "golden" / "fields.npz")
    g = {k.removeprefix("tvb__"): golden[k] for k in golden.files if k.startswith("tvb__")}
    info = json.loads(str(g["info"]))
    local = scipy.sparse.coo_matrix((g["local"], (g["local_i"], g["local_j"])), (162, 162)).tocsc()
    mapping = SimpleNamespace(
        array_data=g["regions"], surface=SimpleNamespace(vertices=g["vertices"], triangles=g["triangles"])
    )
    names = ("tau", "I", "b", "c", "d", "e", "f", "g", "alpha", "beta", "gamma")
    values = {k: np.atleast_1d(np.asarray(info["params"][k], float)) for k in names}
    model = stand_in(
        "Generic2dOscillator", a=g["a"], **values, state_variables=("V", "W"), variables_of_interest=("V", "W")
    )
    simulator = template(
        model=model,
        connectivity=SimpleNamespace(
            weights=g["weights"],
            tract_lengths=g["tract_lengths"],
            speed=np.array([info["speed"]]),
            region_labels=None,
            centres=None,
            configure=lambda: None,
        ),
        surface=stand_in(
            "Cortex",
            region_mapping_data=mapping,
            local_connectivity=SimpleNamespace(matrix=local),
            coupling_strength=np.array([info["strength"]]),
        ),
        coupling=stand_in("Linear", a=np.array([info["G"]]), b=np.array([0.0])),
        integrator=stand_in(f"{scheme}Deterministic", dt=info["dt"]),
        monitors=(stand_in("Raw", config_for_sim=lambda self, sim: None, istep=1, voi=[0, 1]),),
    )
    with jax.enable_x64(True):
        sim = vb.bridges.from_tvb(simulator)
        y = vb.simulate(sim, t1=20.0, key=None, init=sim.model.State(*g["x0"])).ys["raw"]
        for k, name in enumerate(("V", "W")):
            np.testing.assert_allclose(y[name][g["step"] - 1], g[scheme.lower()][:, k], atol=1e-9)
        # of six regions one leaves the surface: a point after the vertices, driven by the connectome alone
        mapping.array_data = np.where(g["regions"] == 4, 5, g["regions"])
        simulator.connectivity.centres, model.__class__.a = np.arange(18.0).reshape(6, 3), np.linspace(-2.0, -1.5, 6)
        other = vb.bridges.from_tvb(simulator)
        assert other.n_nodes == 163
        assert int(other.field.regions.regions[162]) == 4
        np.testing.assert_allclose(other.model.a[162], -1.6, rtol=1e-12)
        np.testing.assert_allclose(other.model.a[:162], np.linspace(-2.0, -1.5, 6)[mapping.array_data], rtol=1e-12)
        x = np.random.default_rng(0).normal(size=163)
        np.testing.assert_allclose(other.field.local(x), np.append(local @ x[:162], 0.0), rtol=1e-12)
