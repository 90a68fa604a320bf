"""Domains and operators of fields: golden numbers, closed forms, direct sums over pairs; every bad input a sentence."""

import base64
import gzip
import zipfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.special

import vbinfer as vb

GOLDEN = np.load(Path(__file__).parent / "golden" / "fields.npz")
F = vb.fields


def golden(part):
    """Arrays of one part; numbers as Python's."""
    found = {k.removeprefix(f"{part}__"): GOLDEN[k] for k in GOLDEN.files if k.startswith(f"{part}__")}
    return {k: a.item() if a.ndim == 0 and a.dtype.kind in "if" else a for k, a in found.items()}


def nodes_of(domain, theta, phi, radius):
    """For each given place the point of the domain that lies there."""
    place = radius * np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    away = ((np.asarray(domain.positions)[None] - place[:, None]) ** 2).sum(-1)
    assert np.sqrt(away.min(1)).max() < 1e-4 * radius
    return away.argmin(1)


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def sphere_of(g):
    return F.Sphere(g["lmax"], g["n_lat"], g["n_lon"], g["radius"])


@pytest.mark.parametrize("part", ["sphere_a", "sphere_b"])
def test_sphere_operator_and_flow_are_the_golden_ones(part):
    g = golden(part)
    sphere = sphere_of(g)
    at = nodes_of(sphere, g["theta"], g["phi"], g["radius"])
    field = lambda name: jnp.zeros(sphere.n_nodes).at[at].set(g[name])  # noqa: E731
    op = F.LaplaceBeltrami(sphere, D=g["D"])
    np.testing.assert_allclose(np.asarray(sphere.areas)[at], g["areas"], rtol=1e-12)
    for x in ("x", "rough_x"):
        scale = np.abs(g[x]).max()
        name = x.removesuffix("x")
        np.testing.assert_allclose(op(field(x))[at], g[f"{name}laplace_x"], atol=1e-11 * scale)
        np.testing.assert_allclose(op.flow(field(x), g["t"])[at], g[f"{name}flow_x"], atol=1e-11 * scale)
    # the harmonics span what scipy's do, degree by degree: the Gram matrix of the two is orthogonal in each
    phi, eigenvalue = sphere.modes((sphere.lmax + 1) ** 2)
    gram = np.asarray(phi)[at].T @ (g["areas"][:, None] * g["Y"] / g["radius"])
    degree = np.repeat(np.arange(g["lmax"] + 1), 2 * np.arange(g["lmax"] + 1) + 1)
    np.testing.assert_allclose(gram.T @ gram, np.eye(len(gram)), atol=1e-12)
    assert np.abs(gram[degree[:, None] != degree[None]]).max() < 1e-12
    np.testing.assert_allclose(op.eigenvalues(), g["eigenvalue_of_degree"][degree], rtol=1e-12)
    np.testing.assert_allclose(-g["D"] * eigenvalue, op.eigenvalues(), rtol=1e-12)


def test_every_harmonic_of_scipy_is_an_eigenfunction():
    sphere = F.Sphere(6, 9, 17, 30.0)  # more rings than needed, an odd number of them, just enough longitudes
    x, y, z = np.asarray(sphere.positions).T / 30.0
    op = F.LaplaceBeltrami(sphere, D=1.7)
    for n in range(7):
        for m in range(n + 1):
            harmonic = scipy.special.sph_harm_y(n, m, np.arccos(z), np.arctan2(y, x))
            for part in (harmonic.real, harmonic.imag):
                np.testing.assert_allclose(op(part), -1.7 * n * (n + 1) / 900.0 * part, atol=1e-14)


def test_fields_are_batch_last_and_operators_linear_and_self_adjoint():
    rng = np.random.default_rng(1)
    bumpy = F.Mesh(GOLDEN["bumpy__vertices"], GOLDEN["bumpy__triangles"])
    sphere = F.Sphere(5, radius=40.0)
    for domain, op in (
        (sphere, F.LaplaceBeltrami(sphere, D=0.3)),
        (sphere, F.Kernel(sphere, F.MexicanHat(8.0, 15.0, 0.7))),
        (bumpy, F.LaplaceBeltrami(bumpy, D=0.3)),
        (bumpy, F.Kernel(bumpy, F.Exponential(6.0), cutoff=30.0)),
    ):
        x, y = rng.normal(2.0, 1.0, (2, domain.n_nodes, 2, 3))
        both = op(x)
        assert both.shape == x.shape
        np.testing.assert_allclose(both[:, 1, 2], op(x[:, 1, 2]), rtol=1e-10, atol=1e-12)
        left, right = domain.inner(both, y), domain.inner(x, op(y))
        np.testing.assert_allclose(left, right, rtol=1e-10)
        assert left.shape == (2, 3)
        np.testing.assert_allclose(op(x - 2.0 * y), both - 2.0 * op(y), rtol=1e-9, atol=1e-11)
    for op in (F.Kernel(sphere, F.MexicanHat(8.0, 15.0, 0.7)), F.LaplaceBeltrami(bumpy, D=0.3)):
        x = rng.normal(2.0, 1.0, (op.domain.n_nodes, 2))
        np.testing.assert_allclose(op.flow(x, 0.7), op.flow(op.flow(x, 0.3), 0.4), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["gaussian", "exponential"])
def test_kernels_on_a_sphere_have_the_golden_gains(name):
    g = golden(f"kernel_{name}")
    sphere = sphere_of(golden("kernel"))
    shape = {"gaussian": F.Gaussian, "exponential": F.Exponential}[name](g["width"])
    for normalise in ("integral", "rows"):
        gains = F.Kernel(sphere, shape, normalise).eigenvalues()[np.arange(12) ** 2]
        np.testing.assert_allclose(gains, g[f"g_{normalise}"], rtol=1e-8)


def test_von_mises_gains_are_those_of_bessel_functions():
    sphere = F.Sphere(11, radius=70.0)
    for kappa in (10.0, 50.0):
        gains = F.Kernel(sphere, F.VonMises(kappa)).eigenvalues()[np.arange(12) ** 2]
        closed = scipy.special.spherical_in(np.arange(12), kappa) / scipy.special.spherical_in(0, kappa)
        np.testing.assert_allclose(gains, closed, rtol=1e-9)
        np.testing.assert_allclose(gains, GOLDEN[f"kernel_vonmises_{kappa:.0f}__g_rows"], rtol=1e-9)


def test_a_kernel_is_the_double_sum_over_all_pairs():
    g = golden("kernel_dense")
    sphere = sphere_of(golden("kernel"))
    np.testing.assert_allclose(F.Kernel(sphere, F.Gaussian(g["width"]))(g["x"]), g["Kx_integral"], atol=1e-11)


def test_a_cutoff_cuts_the_integral():
    # of 1, (1 - exp(-c^2 / 2 w^2)) over the plane; on a sphere 2 pi R^2 int_0^c/R exp(-R^2 a^2 / 2 w^2) sin a da
    sphere, w, c = F.Sphere(9, radius=100.0), 20.0, 35.0
    a = np.linspace(0.0, c / 100.0, 20001)
    integral = np.trapezoid(np.exp(-0.5 * (100.0 * a / w) ** 2) * np.sin(a), a) * 2 * np.pi * 1e4 / (2 * np.pi * w**2)
    np.testing.assert_allclose(F.Kernel(sphere, F.Gaussian(w), cutoff=c)(np.ones(sphere.n_nodes)), integral, rtol=1e-7)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_icosphere_has_the_golden_eigenvalues(order):
    ball = F.Mesh.icosphere(order, GOLDEN["icosphere__radius"].item())
    found = np.asarray(ball.modes(36)[1])
    np.testing.assert_allclose(found[1:], GOLDEN[f"icosphere_{order}__eigenvalues"][1:], rtol=1e-6)
    assert found[0] == 0.0
    np.testing.assert_allclose(ball.areas.sum(), GOLDEN[f"icosphere_{order}__area"], rtol=1e-12)


def test_mesh_eigenvalues_converge_at_second_order():
    # degree 4, mean over its nine eigenvalues; each order halves the edges
    error = [np.mean(np.asarray(F.Mesh.icosphere(k, 1.0).modes(25)[1])[16:25]) / 20.0 - 1.0 for k in (2, 3, 4)]
    assert 3.6 < error[0] / error[1] < 4.4
    assert 3.6 < error[1] / error[2] < 4.4


def test_mesh_modes_are_orthonormal_eigenfunctions_of_the_operator():
    bumpy = F.Mesh(GOLDEN["bumpy__vertices"], GOLDEN["bumpy__triangles"])
    phi, eigenvalue = bumpy.modes(50)
    np.testing.assert_allclose(eigenvalue[1:], GOLDEN["bumpy__eigenvalues"][1:], rtol=1e-6)
    np.testing.assert_allclose(bumpy.areas, GOLDEN["bumpy__areas"], rtol=1e-12)
    np.testing.assert_allclose(phi.T @ (bumpy.areas[:, None] * phi), np.eye(50), atol=1e-10)
    np.testing.assert_allclose(phi[:, 0], bumpy.areas.sum() ** -0.5, rtol=1e-12)
    op = F.LaplaceBeltrami(bumpy, D=2.5)
    np.testing.assert_allclose(op(phi), -2.5 * eigenvalue * phi, atol=1e-12)
    np.testing.assert_allclose(op.flow(phi, 40.0), np.exp(-100.0 * eigenvalue) * phi, atol=1e-13)
    assert np.abs(op(np.full(642, 3.7))).max() == 0.0
    np.testing.assert_allclose(op.norm(), 2.5 * bumpy.modes(642)[1][-1], rtol=1e-6)


def test_mesh_kernel_is_the_sum_along_edges():
    """Against Floyd and Warshall's distances, written out."""
    ball = F.Mesh.icosphere(1, 10.0)
    v, t = np.asarray(ball.vertices), np.asarray(ball.triangles)
    n = len(v)
    d = np.full((n, n), np.inf)
    for a, b, c in t:
        for i, j in ((a, b), (b, c), (c, a)):
            d[i, j] = d[j, i] = np.sqrt(((v[i] - v[j]) ** 2).sum())
    d[np.arange(n), np.arange(n)] = 0.0
    for k in range(n):
        d = np.minimum(d, d[:, k : k + 1] + d[k : k + 1])
    x, areas = np.random.default_rng(0).normal(1.0, 1.0, n), np.asarray(ball.areas)
    k = np.where(d <= 21.0, np.exp(-0.5 * (d / 6.0) ** 2), 0.0)
    kernel = lambda how: F.Kernel(ball, F.Gaussian(6.0), how, cutoff=21.0)  # noqa: E731
    np.testing.assert_allclose(kernel("integral")(x), k @ (areas * x) / (2 * np.pi * 36.0), rtol=1e-12)
    np.testing.assert_allclose(kernel("rows")(x), k @ (areas * x) / (k @ areas), rtol=1e-12)
    off = k - np.eye(n)
    tvb = off * (off.sum(1).mean() / off.sum(1))[:, None]
    np.testing.assert_allclose(kernel("tvb")(x), tvb @ x, rtol=1e-12)
    np.testing.assert_allclose(
        kernel("integral").flow(x, 1.3), scipy.linalg.expm(1.3 * k * areas / (2 * np.pi * 36.0)) @ x, rtol=1e-11
    )
    whole = np.exp(-0.5 * (d / 6.0) ** 2)
    np.testing.assert_allclose(F.Kernel(ball, F.Gaussian(6.0))(x), whole @ (areas * x) / (2 * np.pi * 36.0), rtol=1e-6)
    eigenvalues = kernel("integral").eigenvalues(5)
    expected = np.sort(np.abs(scipy.linalg.eigvals(k * areas / (2 * np.pi * 36.0))))[::-1][:5]
    np.testing.assert_allclose(np.abs(eigenvalues), expected, rtol=1e-10)


def test_mesh_kernel_of_tvb_is_tvbs_local_connectivity():
    mesh = F.Mesh(GOLDEN["tvb__vertices"], GOLDEN["tvb__triangles"])
    at = (GOLDEN["tvb__local_i"], GOLDEN["tvb__local_j"])
    tvb = scipy.sparse.coo_matrix((GOLDEN["tvb__local"], at), (162, 162)).toarray()
    kernel = F.Kernel(mesh, F.Gaussian(14.0), normalise="tvb", cutoff=45.0)
    np.testing.assert_allclose(kernel(np.eye(162)), tvb, atol=1e-13)
    np.testing.assert_allclose(F.Local(scipy.sparse.csr_matrix(tvb))(np.eye(162)), tvb, rtol=1e-14)


def test_a_smooth_field_gives_the_same_at_every_resolution():
    field = lambda domain: jnp.asarray(np.asarray(domain.positions) @ [0.3, -0.5, 0.8] + 80.0)  # noqa: E731
    on = {}
    for order in (3, 4):
        ball = F.Mesh.icosphere(order, 50.0)
        on[order] = F.Kernel(ball, F.Gaussian(18.0), cutoff=50.0)(field(ball))[:12]  # the icosahedron's vertices stay
    assert np.ptp(np.asarray(on[3])) > 40.0
    np.testing.assert_allclose(on[3], on[4], rtol=0.02)  # distances along edges of unlike triangles
    sphere, ball = F.Sphere(7, radius=50.0), F.Mesh.icosphere(4, 50.0)
    for domain in (sphere, ball):
        lap, x = F.LaplaceBeltrami(domain, D=1.0)(field(domain)), field(domain) - 80.0
        off = lap + 2.0 / 2500.0 * x  # degree 1: eigenvalue 2 / R^2
        assert domain.inner(off, off) < 1e-4 * domain.inner(lap, lap)


def test_local_takes_areas_and_is_exponentiated():
    rng = np.random.default_rng(2)
    matrix, areas, x = rng.normal(0.2, 0.5, (7, 7)), rng.uniform(0.5, 2.0, 7), rng.normal(1.0, 1.0, (7, 2))
    np.testing.assert_allclose(F.Local(matrix, areas)(x), matrix @ (areas[:, None] * x), rtol=1e-12)
    np.testing.assert_allclose(F.Local(matrix).flow(x, -2.3), scipy.linalg.expm(-2.3 * matrix) @ x, rtol=1e-10)


def test_width_and_diffusion_are_differentiable_parameters():
    sphere, ball = F.Sphere(6, radius=20.0), F.Mesh.icosphere(1, 20.0)
    width, D = ("shape.width", 6.0), ("D", 1.5)
    apply, flow = lambda op, x: op(x), lambda op, x: op.flow(x, 0.4, steps=2)
    for op, (path, at), act in (
        (F.Kernel(sphere, F.Gaussian(6.0)), width, apply),
        (F.Kernel(sphere, F.Gaussian(6.0)), width, flow),
        (F.Kernel(ball, F.Gaussian(6.0), "rows"), width, apply),
        (F.LaplaceBeltrami(ball, D=1.5), D, flow),
    ):
        assert sorted(vb.paths(op)) == [path]
        x = np.random.default_rng(3).normal(1.0, 1.0, op.domain.n_nodes)

        def value(p, op=op, path=path, act=act, x=x):
            return (act(vb.bind(op, {path: p}), x) ** 2).sum()

        both = jax.jit(jax.value_and_grad(value))
        slope = (both(at + 1e-5)[0] - both(at - 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(both(at)[1], slope, rtol=1e-6)
        np.testing.assert_allclose(jax.jvp(value, (at,), (1.0,))[1], slope, rtol=1e-6)


def test_too_few_steps_of_a_flow_are_seen():
    ball = F.Mesh.icosphere(1, 20.0)
    op, x = F.LaplaceBeltrami(ball, D=1.5), np.arange(42.0)
    assert np.isnan(op.flow(x, 300.0, steps=1)).all()
    np.testing.assert_allclose(
        jax.jit(lambda x, t: op.flow(x, t))(x, 300.0), op.flow(x, 300.0), rtol=1e-10
    )  # a number that is traced


def test_in_single_precision_operators_keep_their_digits():
    with jax.enable_x64(False):
        g = golden("sphere_b")
        sphere = sphere_of(g)
        x = g["x"].astype(np.float32)
        op = F.LaplaceBeltrami(sphere, D=g["D"])
        assert op(x).dtype == jnp.float32
        np.testing.assert_allclose(op(x), g["laplace_x"], atol=1e-5 * np.abs(g["laplace_x"]).max())
        np.testing.assert_allclose(op.flow(x, g["t"]), g["flow_x"], atol=1e-5 * np.abs(g["x"]).max())
        ball = F.Mesh.icosphere(2, 50.0)
        np.testing.assert_allclose(ball.modes(36)[1][1:], GOLDEN["icosphere_2__eigenvalues"][1:], rtol=1e-5)


def test_integrals_patches_and_grids():
    sphere, ball = F.Sphere(8, radius=30.0), F.Mesh.icosphere(3, 30.0)
    z = lambda domain: np.asarray(domain.positions)[:, 2]  # noqa: E731
    np.testing.assert_allclose(sphere.integrate(z(sphere) ** 2), 4 * np.pi * 30.0**4 / 3, rtol=1e-12)
    np.testing.assert_allclose(ball.integrate(z(ball) ** 2), 4 * np.pi * 30.0**4 / 3, rtol=0.02)
    np.testing.assert_allclose(sphere.inner(z(sphere), z(sphere)[:, None] + 1.0), [4 * np.pi * 30.0**4 / 3], rtol=1e-12)
    grid = np.asarray(sphere.as_grid(sphere.positions))
    assert grid.shape == (9, 18, 3)
    assert np.ptp(grid[..., 2], axis=1).max() < 1e-12
    np.testing.assert_allclose(np.arctan2(grid[:, 5, 1], grid[:, 5, 0]), 2 * np.pi * 5 / 18, rtol=1e-12)
    # a cap of angle a has the area 2 pi R^2 (1 - cos a); points on its rim make the error
    for domain in (F.Sphere(60, radius=30.0), F.Mesh.icosphere(4, 30.0)):
        cap = 2 * np.pi * 900.0 * (1 - np.cos(20.0 / 30.0))
        patch = domain.patch([0.0, 0.0, 30.0], 20.0)
        assert set(np.unique(patch)) == {0.0, 1.0}
        away = np.linalg.norm(np.asarray(domain.positions)[np.asarray(patch) == 1] - [0, 0, 30.0], axis=1)
        assert away.max() <= 20.0 + away.min()  # measured from the nearest point
        np.testing.assert_allclose(domain.integrate(patch), cap, rtol=0.12 if isinstance(domain, F.Sphere) else 0.2)
    np.testing.assert_array_equal(ball.patch(5, 9.0), ball.patch(np.asarray(ball.vertices)[5] * 1.01, 9.0))


def encoded(array, encoding):
    raw = np.ascontiguousarray(array).tobytes()
    if encoding == "ASCII":
        return " ".join(map(str, array.ravel()))
    return base64.b64encode(zlib.compress(raw) if encoding.startswith("GZip") else raw).decode()


def gifti(v, t, encoding):
    one = (
        '<DataArray Intent="{}" DataType="{}" ArrayIndexingOrder="RowMajorOrder" Dimensionality="2" Dim0="{}" Dim1="3" '
        'Encoding="{}" Endian="LittleEndian"><Data>{}</Data></DataArray>'
    )
    parts = [
        one.format(f"NIFTI_INTENT_{kind}", f"NIFTI_TYPE_{number}", len(a), encoding, encoded(a, encoding))
        for kind, number, a in (("POINTSET", "FLOAT32", v.astype("<f4")), ("TRIANGLE", "INT32", t.astype("<i4")))
    ]
    return f'<?xml version="1.0"?><GIFTI Version="1.0">{"".join(parts)}</GIFTI>'.encode()


def test_surfaces_come_from_files(tmp_path):
    v, t = GOLDEN["tvb__vertices"], GOLDEN["tvb__triangles"]
    head = b"\xff\xff\xfecreated by somebody\n\n" + np.array([len(v), len(t)], ">i4").tobytes()
    files = {
        "lh.pial": head + v.astype(">f4").tobytes() + t.astype(">i4").tobytes(),
        "plain.surf.gii": gifti(v, t, "ASCII"),
        "b64.surf.gii": gifti(v, t, "Base64Binary"),
        "gz.surf.gii": gifti(v, t, "GZipBase64Binary"),
        "all.surf.gii.gz": gzip.compress(gifti(v, t, "GZipBase64Binary")),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "cortex.zip", "w") as archive:
        archive.writestr("cortex/vertices.txt", "\n".join(" ".join(map(repr, row)) for row in v.tolist()))
        archive.writestr("cortex/triangles.txt", "\n".join(" ".join(map(str, row)) for row in t.tolist()))
    for name in (*files, "cortex.zip"):
        mesh = F.Mesh.from_file(tmp_path / name)
        np.testing.assert_allclose(mesh.vertices, v, atol=1e-5)
        np.testing.assert_array_equal(mesh.triangles, t)
    (tmp_path / "other").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="give lh"):
        F.Mesh.from_file(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        F.Mesh.from_file(tmp_path / "lh.absent")


def test_faults_of_a_mesh_are_named():
    ball = F.Mesh.icosphere(1, 10.0)
    v, t = np.asarray(ball.vertices), np.asarray(ball.triangles)
    turned, nan, flat = t.copy(), v.copy(), t.copy()
    turned[7], nan[3, 1], flat[5, 1] = t[7][::-1], np.nan, t[5, 0]
    for vertices, triangles, remedy in (
        (v, turned, r"triangles \d+ and \d+ .* reverse it"),
        (v, t[:, ::-1], r"triangles\[:, ::-1\]"),
        (nan, t, "vertex 3 is NaN"),
        (v, flat, "triangle 5 has no area"),
        (np.vstack([v, [[1.0, 2.0, 3.0]]]), t, "1 vertices are in no triangle, the first is 42"),
        (v, t + 1, "a triangle names vertex 42"),
        (v, np.vstack([t, [t[0, [0, 2, 1]]]]), "is in 3 triangles"),
        (v[:, :2], t, r"expected \[N, 3\]"),
        (v, t * 1.0, "whole numbers"),
    ):
        with pytest.raises(ValueError, match=remedy):
            F.Mesh(vertices, triangles)
    twice = np.vstack([v, v[t[0, :1]]])
    t2 = t.copy()
    t2[0, 0] = 42
    with pytest.raises(ValueError, match="merge the 1 duplicates"):
        F.Mesh(twice, t2)
    with pytest.warns(UserWarning, match="3 border edges; no flux"):
        cut = F.Mesh(v, t[1:])
    x = np.random.default_rng(0).normal(1.0, 1.0, 42)
    np.testing.assert_allclose(cut.integrate(F.LaplaceBeltrami(cut, 1.0)(x)), 0.0, atol=1e-10)  # nothing flows out


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: F.Sphere(8, n_lat=8), "lmax=8 .* n_lat=9"),
        (lambda: F.Sphere(8, n_lon=16), "lmax=8 .* n_lon=17"),
        (lambda: F.Sphere(8, radius=0.0), "radius"),
        (lambda: F.Sphere(8.5), "lmax"),
        (lambda: F.Sphere(3).modes(17), "at most 16"),
        (lambda: F.Sphere(3).integrate(np.ones(7)), "32 points"),
        (lambda: F.LaplaceBeltrami(F.Sphere(3), D=-1.0), "D is -1"),
        (lambda: F.LaplaceBeltrami(F.Sphere(3), D=[1.0, 2.0]), "one number"),
        (lambda: F.LaplaceBeltrami(F.Sphere(3), D=1.0)(np.ones(5)), "32 points"),
        (lambda: F.Kernel(F.Sphere(3), F.Gaussian(5.0), normalise="tvb"), '"integral" or "rows"'),
        (lambda: F.Kernel(F.Sphere(3), F.Gaussian(5.0), normalise="none"), "'integral', 'rows'"),
        (lambda: F.Kernel(F.Sphere(3), F.Gaussian([5.0, 6.0])), "one number"),
        (lambda: F.Kernel(F.Sphere(3), F.MexicanHat(5.0, 9.0), "rows"), 'normalise="integral"'),
        (lambda: F.Kernel(F.Sphere(3), F.Gaussian(5.0), cutoff=-1.0), "cutoff"),
        (lambda: F.Kernel(F.Mesh.icosphere(1), F.VonMises(5.0)), "Gaussian"),
        (lambda: F.Local(np.ones((2, 3))), r"\[N, N\]"),
        (lambda: F.Local([[1.0, np.nan], [0.0, 1.0]]), "finite"),
        (lambda: F.Local(np.eye(3), areas=np.ones(2)), "areas has shape"),
        (lambda: F.Local(np.eye(3))(np.ones(2)), r"expected \[3"),
    ],
)
def test_bad_input_gets_a_sentence(make, remedy):
    with pytest.raises(ValueError, match=remedy):
        make()


def test_a_width_in_place_of_a_profile_is_a_type_error():
    with pytest.raises(TypeError, match="Gaussian"):
        F.Kernel(F.Sphere(3), 10.0)


# ---- folds


def test_folds_are_a_random_harmonic_of_their_degree():
    """-l(l+1)/R^2 under the sphere's Laplacian, mean square 1, and more area than the sphere of the same volume."""
    ball = F.Mesh.icosphere(4, 50.0)
    surface = F.Mesh.folded(4, 5, key=jax.random.key(1), depth=0.1, radius=50.0)
    place = np.asarray(surface.positions)
    shape = np.log(np.linalg.norm(place, axis=1) / 50.0) / 0.1
    np.testing.assert_allclose(place / np.linalg.norm(place, axis=1)[:, None], ball.positions / 50.0, atol=1e-12)
    area = np.asarray(ball.areas, float)
    np.testing.assert_allclose((area * shape**2).sum() / area.sum(), 1.0, rtol=0.01)
    laplacian = F.LaplaceBeltrami(ball, D=1.0)(shape) * 50.0**2
    assert np.sqrt((area * (laplacian + 30.0 * shape) ** 2).sum() / area.sum()) < 0.03 * 30.0
    a, b, c = place[surface.triangles.T]
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0
    whole = float(np.asarray(surface.areas, float).sum())
    assert whole**3 > 1.1 * 36.0 * np.pi * volume**2  # the sphere has the least
    other = F.Mesh.folded(4, 5, key=jax.random.key(2), depth=0.1, radius=50.0)
    assert np.abs(np.asarray(other.positions) - place).max() > 5.0
    with pytest.raises(ValueError, match="at most 16, or a higher order"):
        F.Mesh.folded(4, 17, key=jax.random.key(1))
    with pytest.raises(ValueError, match="depth"):
        F.Mesh.folded(1, 1, key=jax.random.key(1), depth=-0.1)
