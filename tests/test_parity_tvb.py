"""New random problems solved by The Virtual Brain itself and by vbinfer: `make test-parity` (needs tvb-library)."""

import bz2
import warnings
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

pytestmark = pytest.mark.parity
pytest.importorskip("tvb", reason="tvb-library is not installed: make test-parity")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tvb.datatypes import connectivity, equations, patterns, projections, region_mapping, sensors
    from tvb.simulator import coupling as tvb_coupling
    from tvb.simulator import integrators, monitors
    from tvb.simulator import noise as tvb_noise
    from tvb_problems import (
        DT,
        MODELS,
        SPEED,
        STEPS,
        couplings,
        deviation,
        double_precision,  # noqa: F401  (a fixture)
        horizon,
        normals,
        ours,
        problem,
        run,
        sampled,
        theirs,
        trajectory,
    )


@pytest.mark.parametrize("kind", ["Linear", "Difference", "natural"])
@pytest.mark.parametrize("name", MODELS)
def test_models_couplings_and_delays(name, kind):
    for n, delayed in ((5, False), (9, False), (5, True), (9, True)):
        given = problem(name, n, delayed)
        reference, coupling = couplings(name, kind)
        expected = trajectory(theirs(name, given, reference, integrators.HeunDeterministic(dt=DT)))
        y = run(ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True)), given.x0)
        assert np.isfinite(expected).all()
        assert deviation(y, expected) < 1e-9, (n, delayed)
        if (n, delayed) == (9, True):
            turned = given._replace(weights=given.weights.T, lengths=given.lengths.T)
            y = run(ours(name, turned, coupling, vb.Heun(dt=DT, frozen_coupling=True)), given.x0)
            assert deviation(y, expected) > 1e-6


@pytest.mark.parametrize("sparse", [False, True])
def test_a_batch_of_draws_is_tvb_run_by_run(sparse):
    """Speed, weights, lengths and strength of each draw its own: no lag is shared."""
    name, given, draws = "JansenRit", problem("JansenRit", 9, True), 3
    speeds, scales = np.array([2.5, 3.1, 5.7]), np.array([1.0, 0.8, 1.3])
    weights, lengths = given.weights * scales[:, None, None], given.lengths * scales[::-1, None, None]
    reference, coupling = couplings(name, "natural")
    delays = vb.Delays(max=2 * given.lengths.max() / SPEED)
    sim = ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True), delays=delays)
    strengths = reference.a * scales
    theta = {"connectome.speed": speeds, "coupling.a": strengths}
    pairs = {"connectome.weights": weights, "connectome.tract_lengths": lengths}
    if sparse:
        sim = eqx.tree_at(lambda s: s.connectome, sim, sim.connectome.sparse())
        pairs = {path: values[:, *sim.connectome.edges] for path, values in pairs.items()}
    theta = {path: jnp.asarray(values) for path, values in (theta | pairs).items()}
    init = sim.model.State(*map(jnp.asarray, given.x0))
    summary = lambda y: jnp.stack([y[v] for v in sim.model.variables()], axis=1).ravel()  # noqa: E731
    fwd = vb.ForwardModel(sim, t1=STEPS * DT, summary=summary, init=init)
    y = np.asarray(fwd.batch(theta, jax.random.split(jax.random.key(0), draws))).reshape(draws, STEPS, *given.x0.shape)
    for k in range(draws):
        # a faster tract is a shorter one
        one = given._replace(weights=weights[k], lengths=lengths[k] * SPEED / speeds[k])
        reference.a = strengths[k : k + 1]
        expected = trajectory(theirs(name, one, reference, integrators.HeunDeterministic(dt=DT)))
        assert deviation(y[k], expected) < 1e-9, k


@pytest.mark.parametrize("name", ["Epileptor", "Epileptor2D"])
def test_modified_epileptor(name):
    given = problem(name, 5, False)
    reference, coupling = couplings(name, "Difference")
    sim = theirs(name, given, reference, integrators.HeunDeterministic(dt=DT))
    sim.model.modification = np.array([True])
    plain = ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True))
    model = getattr(vb.models, name)(**given.params, modification=True)
    bent = ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True), model=model)
    expected = trajectory(sim)
    assert deviation(run(bent, given.x0), expected) < 1e-9
    assert deviation(run(plain, given.x0), expected) > 1e-6


def test_both_rows_of_the_coupling_of_montbrio():
    name = "MontbrioPazoRoxin"
    given = problem(name, 9, True)
    given.params["cv"] = np.linspace(-0.3, 0.5, 9)
    reference, coupling = couplings(name, "Difference")
    model = vb.models.MontbrioPazoRoxin(**given.params, cvar=("r", "V"))
    sim = ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True), model=model)
    expected = trajectory(theirs(name, given, reference, integrators.HeunDeterministic(dt=DT)))
    assert deviation(run(sim, given.x0), expected) < 1e-9


def test_wilson_cowan_without_the_shift_of_its_sigmoid():
    given = problem("WilsonCowan", 5, True)
    reference, coupling = couplings("WilsonCowan", "Linear")
    sim = theirs("WilsonCowan", given, reference, integrators.HeunDeterministic(dt=DT))
    sim.model.shift_sigmoid = np.array([False])
    model = vb.models.WilsonCowan(**given.params, shift_sigmoid=False)
    y = run(ours("WilsonCowan", given, coupling, vb.Heun(dt=DT, frozen_coupling=True), model=model), given.x0)
    assert deviation(y, trajectory(sim)) < 1e-9


@pytest.mark.parametrize("delayed", [False, True])
def test_euler(delayed):
    name = "WilsonCowan"
    given = problem(name, 9, delayed)
    reference, coupling = couplings(name, "Difference")
    expected = trajectory(theirs(name, given, reference, integrators.EulerDeterministic(dt=DT)))
    assert deviation(run(ours(name, given, coupling, vb.integrators.Euler(dt=DT)), given.x0), expected) < 1e-9


def test_runge_kutta_without_coupling():
    name = "LarterBreakspear"
    given = problem(name, 5, False)
    rk4 = integrators.RungeKutta4thOrderDeterministic(dt=DT)
    expected = trajectory(theirs(name, given, tvb_coupling.Linear(a=np.zeros(1)), rk4))
    y = run(ours(name, given, vb.coupling.Linear(G=0.0), vb.integrators.RungeKutta4(dt=DT)), given.x0)
    assert deviation(y, expected) < 1e-12


@pytest.mark.parametrize(("delayed", "order"), [(False, 4.0), (True, 2.0)])
def test_runge_kutta_with_coupling_has_its_order_here_and_order_one_there(delayed, order):
    """TVB holds the coupling over the four stages. Lags are whole numbers of the coarsest step."""
    name, given = "SupHopf", problem("SupHopf", 5, delayed)
    given = given._replace(lengths=np.rint(given.lengths / SPEED / 0.16) * 0.16 * SPEED)
    reference, coupling = couplings(name, "Difference")
    ends: dict[str, list[np.ndarray]] = {"tvb": [], "ours": []}
    for k in (1, 2, 32):
        dt, steps = 0.16 / k, 25 * k
        rk4 = integrators.RungeKutta4thOrderDeterministic(dt=dt)
        if k < 32:
            ends["tvb"].append(trajectory(theirs(name, given, reference, rk4), steps)[-1])
        ends["ours"].append(run(ours(name, given, coupling, vb.integrators.RungeKutta4(dt=dt)), given.x0, steps)[-1])
    truth = ends["ours"].pop()
    slopes = {who: np.log2(np.abs(a - truth).max() / np.abs(b - truth).max()) for who, (a, b) in ends.items()}
    assert slopes["tvb"] == pytest.approx(1.0, abs=0.2)
    assert slopes["ours"] == pytest.approx(order, abs=0.4)


def test_stimulus():
    """TVB adds it to dV/dt and holds it over a step; here it enters with the coupling, and Heun sees both ends."""
    name, given = "Generic2dOscillator", problem("Generic2dOscillator", 5, True)
    gain, inside = (
        np.array([0.0, 1.0, 0.5, -0.3, 2.0]),
        np.prod([given.params[k] for k in ("d", "tau", "gamma")], axis=0),
    )
    reference, coupling = couplings(name, "Difference")
    deviations = []
    for dt, scheme, integrator in (
        (DT, integrators.EulerDeterministic, vb.integrators.Euler(dt=DT)),
        (DT, integrators.HeunDeterministic, vb.Heun(dt=DT, frozen_coupling=True)),
        (DT / 4, integrators.HeunDeterministic, vb.Heun(dt=DT / 4, frozen_coupling=True)),
    ):
        steps = round(STEPS * DT / dt)
        sim = theirs(name, given, reference, scheme(dt=dt))
        wave = equations.Sinusoid(parameters={"amp": 0.3, "frequency": 0.7})
        sim.stimulus = patterns.StimuliRegion(temporal=wave, connectivity=sim.connectivity, weight=gain)
        sim.model.stvar, sim.simulation_length = np.array([0]), steps * dt
        sim.configure()
        sine = vb.stimuli.Sinusoid(frequency=700.0, amplitude=0.3, gain=gain / inside)
        y = run(ours(name, given, coupling, integrator, stimulus=sine), given.x0, steps)
        deviations.append(deviation(y, trajectory(sim, steps)))
    assert deviations[0] < 1e-9
    assert deviations[1] / deviations[2] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize(
    ("scheme", "integrator"), [("Heun", vb.Heun(dt=DT, frozen_coupling=True)), ("Euler", vb.integrators.Euler(dt=DT))]
)
@pytest.mark.parametrize("delayed", [False, True])
def test_additive_noise(scheme, integrator, delayed):
    """Rates reach their bound of 0 on the way: noise first, then the bound."""
    name, given = "MontbrioPazoRoxin", problem("MontbrioPazoRoxin", 5, delayed)
    nsig = np.random.default_rng(4).uniform(0.0, 0.02, given.x0.shape)
    source = tvb_noise.Additive(nsig=nsig.copy(), random_stream=np.random.RandomState(7))
    reference, coupling = couplings(name, "Difference")
    expected = trajectory(
        theirs(name, given, reference, getattr(integrators, f"{scheme}Stochastic")(dt=DT, noise=source))
    )
    noise = vb.noise.Additive(D=dict(zip(("r", "V"), nsig, strict=True)))
    path = dict(zip(("r", "V"), normals(7, STEPS, given.x0).swapaxes(0, 1), strict=True))
    y = run(ours(name, given, coupling, integrator, noise=noise), given.x0, noise_path=path)
    assert (expected[:, 0] == 0.0).any()
    assert deviation(y, expected) < 1e-9


@pytest.mark.parametrize("scheme", ["Heun", "Euler"])
def test_multiplicative_noise(scheme):
    name, given = "WilsonCowan", problem("WilsonCowan", 5, True)
    source = tvb_noise.Multiplicative(
        nsig=np.array([0.02]),
        b=equations.Linear(parameters={"a": 0.7, "b": 0.1}),
        random_stream=np.random.RandomState(8),
    )
    reference, coupling = couplings(name, "Linear")
    expected = trajectory(
        theirs(name, given, reference, getattr(integrators, f"{scheme}Stochastic")(dt=DT, noise=source))
    )
    integrator = vb.integrators.Euler(dt=DT) if scheme == "Euler" else vb.Heun(dt=DT, frozen_coupling=True)
    noise = vb.noise.Multiplicative(lambda x: {v: 0.04**0.5 * (0.7 * a + 0.1) for v, a in x._asdict().items()})
    path = dict(zip("EI", normals(8, STEPS, given.x0).swapaxes(0, 1), strict=True))
    y = run(ours(name, given, coupling, integrator, noise=noise), given.x0, noise_path=path)
    assert deviation(y, expected) < 1e-9


@pytest.mark.parametrize("name", ["SupHopf", "JansenRit", "ReducedWongWang"])
def test_initial_history(name):
    """Random past, out of the bounds in places, as long as the longest lag; ours may be longer."""
    given = problem(name, 9, True)
    rows = horizon(given, DT)
    past = given.x0 * (1.0 + 0.3 * np.random.default_rng(9).normal(size=(rows, *given.x0.shape)))
    reference, coupling = couplings(name, "Difference")
    expected = trajectory(theirs(name, given, reference, integrators.HeunDeterministic(dt=DT), past=past))
    sim = ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True))
    y = run(sim, vb.History(sim.model.State(*past.swapaxes(0, 1))))
    assert deviation(y, expected) < 1e-9
    longer = np.concatenate([past[:4] + 1.0, past]).swapaxes(0, 1)
    np.testing.assert_allclose(run(sim, vb.History(sim.model.State(*longer))), y, rtol=1e-12)
    assert deviation(run(sim, past[-1]), expected) > 1e-6


GROUPS = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1])


def test_averages_and_snapshots():
    """Samples are the same; TVB puts the time of an average in the middle of its period, we at the end."""
    name, given, period = "JansenRit", problem("JansenRit", 9, False), 7 * DT
    reference, coupling = couplings(name, "natural")
    watched = [
        monitors.TemporalAverage(period=period),
        monitors.SubSample(period=5 * DT, variables_of_interest=np.array([1, 4])),
        monitors.SpatialAverage(period=3 * DT, spatial_mask=GROUPS, variables_of_interest=np.array([2])),
        monitors.Raw(),
    ]
    outputs = sampled(theirs(name, given, reference, integrators.HeunDeterministic(dt=DT), monitors=watched), 70)
    (mean_t, mean), (sub_t, sub), (group_t, group), (raw_t, raw) = outputs
    sim = ours(
        name,
        given,
        coupling,
        vb.Heun(dt=DT, frozen_coupling=True),
        monitors={
            "mean": vb.monitors.TimeAverage(period),
            "sub": vb.monitors.Subsample(5 * DT, var=("y1", "y4")),
            "group": vb.monitors.SpatialAverage("y2", GROUPS, period=3 * DT),
            "raw": vb.monitors.Raw(),
        },
    )
    run = vb.simulate(sim, t1=70 * DT, key=None, init=sim.model.State(*given.x0))
    for k, v in enumerate(sim.model.variables()):
        np.testing.assert_allclose(run.ys["mean"][v], mean[:, k], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(run.ys["raw"][v], raw[:, k], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.stack([run.ys["sub"][v] for v in ("y1", "y4")], axis=1), sub, rtol=1e-9)
    np.testing.assert_allclose(run.ys["group"], group[:, 0], rtol=1e-9)
    np.testing.assert_allclose(run.ts["mean"] - period / 2, mean_t, rtol=1e-12)
    for monitor, times in (("sub", sub_t), ("group", group_t), ("raw", raw_t)):
        np.testing.assert_allclose(run.ts[monitor], times, rtol=1e-12)


@pytest.mark.parametrize("reference", [None, "average", "B2"])
def test_eeg(reference):
    """A gain for 30 vertices, summed over each region; the source is x2 - x1."""
    name, given, period = "Epileptor", problem("Epileptor", 9, False), 6 * DT
    rng = np.random.default_rng(3)
    gain, mapping = rng.normal(size=(4, 30)), np.concatenate([np.arange(9), rng.integers(0, 9, 21)])
    labels = np.array(["A1", "B2", "C3", "D4"])
    theirs_coupling, coupling = couplings(name, "Difference")
    watch = monitors.EEG(
        period=period,
        sensors=sensors.SensorsEEG(labels=labels, locations=rng.normal(size=(4, 3))),
        projection=projections.ProjectionSurfaceEEG(projection_data=gain.copy()),
        region_mapping=region_mapping.RegionMapping(array_data=mapping),
        reference=reference,
        obsnoise=None,
        variables_of_interest=np.array([0]),
    )
    scheme, observed = integrators.HeunDeterministic(dt=DT), ("x2 - x1",)
    sim = theirs(name, given, theirs_coupling, scheme, monitors=[watch], observed=observed)
    times, expected = sampled(sim, 60)[0]
    eeg = vb.monitors.EEG(
        vb.monitors.region_gain(gain, mapping), {"x2": 1.0, "x1": -1.0}, period, reference=reference, labels=labels
    )
    mine = ours(name, given, coupling, vb.Heun(dt=DT, frozen_coupling=True), monitors={"eeg": eeg})
    run = vb.simulate(mine, t1=60 * DT, key=None, init=mine.model.State(*given.x0))
    np.testing.assert_allclose(run.ys["eeg"], expected[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(run.ts["eeg"] - period / 2, times, rtol=1e-12)


HRFS = {
    "FirstOrderVolterra": vb.monitors.VolterraKernel,
    "MixtureOfGammas": lambda: vb.monitors.DoubleGammaKernel(6, 13, ratio=0.4),
    "Gamma": vb.monitors.GammaKernel,
    "DoubleExponential": vb.monitors.DampedSinesKernel,
}
BLOCK = 4
"""ms, of which TVB's Bold monitor keeps the means, for 20 s."""


def test_bold():
    """TVB sums G(4 ms j) x(n-1-j) over blocks x of 4 ms: the integral without its step, and 6 ms late.

    `TvbVolterraKernel` repeats that, but for the newest block, to which TVB gives the weight G(20 s), some 1e-7 of the
    signal. The integrals differ from the sum in second order in 4 ms. Two kernels of TVB are scaled to a peak of 0.1.
    """
    name, given, period, seconds = "Generic2dOscillator", problem("Generic2dOscillator", 5, False), 500, 19
    grid = np.arange(0, 20_000, BLOCK) * 1e-3
    reference, coupling = couplings(name, "Difference")
    x = np.array([0])
    watched = [
        monitors.Bold(period=float(period), hrf_kernel=getattr(equations, kernel)(), variables_of_interest=x)
        for kernel in HRFS
    ]
    scheme = integrators.HeunDeterministic(dt=1.0)
    outputs = sampled(theirs(name, given, reference, scheme, monitors=watched), 1000 * seconds)
    watch = {kernel: vb.monitors.HRF("V", 2.0, make(), step=2.0) for kernel, make in HRFS.items()}
    watch["tvb"] = vb.monitors.HRF("V", float(period), vb.monitors.TvbVolterraKernel(), step=float(BLOCK))
    sim = ours(name, given, coupling, vb.Heun(dt=1.0, frozen_coupling=True), monitors=watch)
    ys = vb.simulate(sim, t1=1000.0 * seconds, key=None, init=sim.model.State(*given.x0)).ys
    for (times, bold), (kernel, make), watching in zip(outputs, HRFS.items(), watched, strict=True):
        G, sampled_G = make()(jnp.asarray(grid)), watching.hrf_kernel.evaluate(grid)
        scale, offset = np.abs(sampled_G).max() / np.abs(G).max(), 0.0
        np.testing.assert_allclose(G * scale, sampled_G, atol=1e-12)
        if kernel == "FirstOrderVolterra":
            scale, offset = 1.0, 5.6 * 0.02
            assert np.abs(ys["tvb"] - bold[:, 0]).max() < 1e-6 * np.abs(bold).max()
        late = np.asarray(ys[kernel])[np.rint(times).astype(int) // 2 - 4] * scale / (1e-3 * BLOCK)
        assert np.abs(late - (bold[:, 0] + offset)).max() < 2e-4 * np.abs(bold).max(), kernel


def test_connectivity_zip(tmp_path):
    """What we write TVB reads, digit by digit, and the other way round."""
    rng, labels = np.random.default_rng(6), tuple(f"region_{i}" for i in range(6))
    weights, lengths, centres = rng.gamma(1.0, size=(6, 6)), rng.uniform(1, 90, (6, 6)), rng.normal(size=(6, 3))
    network = vb.Connectome(weights, lengths, labels=labels, centres=centres)
    network.save_tvb(tmp_path / "ours.zip")
    read = connectivity.Connectivity.from_file(str(tmp_path / "ours.zip"))
    assert tuple(read.region_labels) == labels
    np.testing.assert_array_equal(read.weights, weights)
    np.testing.assert_array_equal(read.tract_lengths, lengths)
    np.testing.assert_array_equal(read.centres, centres)
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
        for table, rows in {"weights": weights, "tract_lengths": lengths}.items():
            archive.writestr(f"net/{table}.txt", "\n".join("   ".join(f"{v:.7e}" for v in row) for row in rows))
        lines = [f"{label}\t{x:.6f}  {y:.6f}  {z:.6f}" for label, (x, y, z) in zip(labels, centres, strict=True)]
        archive.writestr("centres.txt.bz2", bz2.compress("\n".join(lines).encode()))
    read = connectivity.Connectivity.from_file(str(tmp_path / "theirs.zip"))
    back = vb.Connectome.from_tvb(tmp_path / "theirs.zip")
    assert back.labels == tuple(read.region_labels) == labels
    np.testing.assert_array_equal(back.weights, read.weights)
    np.testing.assert_array_equal(back.tract_lengths, read.tract_lengths)
    np.testing.assert_array_equal(back.centres, read.centres)
