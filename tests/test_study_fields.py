"""Study files with a field: the simulator that Python would build, bit for bit, and what mistakes are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.study.table import StudyError

F = vb.fields
STUDY = """
[data]
connectome = "net.zip"
recording  = "signal.csv"
period     = 1.0

[simulator]
model      = { name = "Linear", gamma = -0.5 }
coupling   = { name = "Linear", G = 0.3 }
integrator = { name = "Heun", dt = 0.25 }
noise      = { name = "Additive", sigma = 0.3, areas = "areas" }
monitor    = { name = "OfRegions", monitor = { name = "TimeAverage", var = "x", period = 1.0 }, regions = "regions" }
t1         = 20.0

[simulator.field]
domain   = { name = "Icosphere", order = 1, radius = 50.0 }
local    = { name = "Kernel", shape = { name = "Gaussian", width = 20.0 }, normalise = "rows" }
strength = 0.2
regions  = { numbers = { array = "regions.npy" } }

[prior]
"coupling.G"     = { name = "Uniform", low = 0.0, high = 0.9 }
"field.strength" = { name = "Uniform", low = 0.0, high = 0.4 }

[summary]
fc = { name = "fc_stat" }

[inference]
method = { name = "NPE", density = { name = "MDN" } }
draws  = 64

[output]
dir = "results"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four regions of a sphere of 42 points, a directed network between them, a recording."""
    place = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(4, 4)) * (1 - np.eye(4))
    vb.Connectome(weights / weights.sum(), 10 * weights, labels=tuple("abcd")).save_tvb(place / "net.zip")
    points = np.asarray(F.Mesh.icosphere(1, 50.0).positions)
    np.save(place / "regions.npy", (points[:, 0] > 0).astype(int) + 2 * (points[:, 2] > 10.0))
    np.savetxt(place / "signal.csv", rng.normal(size=(60, 4)), delimiter=",", header="a,b,c,d", comments="")
    return place


def written(place, *changes):
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (place / "study.toml").write_text(text)
    return place / "study.toml"


def test_a_study_file_builds_the_simulator_of_python(folder):
    study = vb.Study.from_toml(written(folder))
    network = vb.load_connectome(folder / "net.zip")
    ball = F.Mesh.icosphere(1, 50.0)
    field = F.Field(
        ball,
        F.Kernel(ball, F.Gaussian(20.0), normalise="rows"),
        strength=0.2,
        regions=F.RegionMap(np.load(folder / "regions.npy"), ball.areas, network.labels),
    )
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.5),
        network,
        coupling=vb.coupling.Linear(G=0.3),
        integrator=vb.Heun(dt=0.25),
        noise=vb.noise.Additive(0.3, areas=ball.areas),
        monitors={"monitor": vb.monitors.OfRegions(vb.monitors.TimeAverage(1.0, "x"), field.regions)},
        field=field,
    )
    theta, key = {"coupling.G": 0.5, "field.strength": 0.1}, jax.random.key(3)
    fwd = vb.ForwardModel(sim, t1=20.0, summary=study.forward.summary["monitor"])
    found = study.forward(theta, key)
    np.testing.assert_array_equal(found, fwd(theta, key))
    assert np.abs(np.asarray(found - study.forward(theta | {"field.strength": 0.4}, key))).max() > 1e-4
    assert study.forward.fingerprint() == vb.Study.from_toml(written(folder)).forward.fingerprint()


@pytest.mark.parametrize(
    ("domain", "local", "made"),
    [
        (
            '{ name = "Sphere", lmax = 5, radius = 50.0 }',
            '{ name = "LaplaceBeltrami", D = 3.0 }',
            lambda place: F.LaplaceBeltrami(F.Sphere(5, radius=50.0), 3.0),
        ),
        (
            '{ name = "Mesh", file = "ball.zip" }',
            '{ name = "Local", matrix = { array = "local.npy" }, areas = "areas" }',
            lambda place: F.Local(np.load(place / "local.npy"), F.Mesh.from_file(place / "ball.zip").areas),
        ),
    ],
)
def test_domains_and_operators_are_found_by_name(folder, domain, local, made):
    import zipfile

    ball = F.Mesh.icosphere(1, 30.0)
    with zipfile.ZipFile(folder / "ball.zip", "w") as archive:
        for name, values in (("vertices", ball.vertices), ("triangles", ball.triangles)):
            rows = "\n".join(" ".join(map(repr, row)) for row in np.asarray(values).tolist())
            archive.writestr(f"{name}.txt", rows)
    np.save(folder / "local.npy", np.random.default_rng(1).normal(size=(42, 42)))
    changes = [
        ('domain   = { name = "Icosphere", order = 1, radius = 50.0 }', f"domain = {domain}"),
        (
            'local    = { name = "Kernel", shape = { name = "Gaussian", width = 20.0 }, normalise = "rows" }',
            f"local={local}",
        ),
        (
            'regions  = { numbers = { array = "regions.npy" } }',
            "regions = { numbers = { array = 'four.npy' }, weighted = false }",
        ),
    ]
    expected = made(folder)
    np.save(folder / "four.npy", np.arange(n := (expected.domain.n_nodes)) % 4)
    field = vb.Study.from_toml(written(folder, *changes)).forward.sim.field
    x = np.random.default_rng(2).normal(size=n)
    np.testing.assert_array_equal(field.local(x), expected(x))
    np.testing.assert_allclose(field.regions.to_regions(jnp.asarray(x))[1], x[1::4].mean(), rtol=1e-5)  # plain means


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("[simulator.field]\ndomain", "[simulator.field]\nplace"), "no key 'place'"),
        (('"Icosphere", order = 1', '"Icosfere", order = 1'), "Did you mean 'Icosphere'"),
        (('"Icosphere", order = 1, radius = 50.0', '"Mesh", file = "no.gii"'), "no file .*no.gii"),
        (('"Kernel"', '"Kernle"'), "Did you mean 'Kernel'"),
        (("width = 20.0", "breadth = 20.0"), "no option 'breadth'"),
        (("width = 20.0", "width = -20.0"), "width"),
        (('{ array = "regions.npy" }', "[0, 1, 2, 3]"), "regions of Field has 4 points and the domain 42|areas is"),
        (('{ array = "regions.npy" }', "[0.5, 1.0]"), "whole numbers"),
        (("strength = 0.2", 'strength = 0.2\nat = "vertices"'), "at="),
        (('numbers = { array = "regions.npy" }', 'map = { array = "regions.npy" }'), "no key 'map'"),
    ],
)
def test_mistakes_of_a_field_are_named(folder, change, remedy):
    with pytest.raises(StudyError, match=remedy):
        vb.Study.from_toml(written(folder, change))
