"""Files that came to harm: a clear error or a repair, and never another number."""

import functools
import shutil
import tempfile
import tomllib
import warnings
from pathlib import Path

import calibration_sources as sources
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import small_study
from damaging import attempt, contents, harmed, unclear

import vbinfer as vb
from vbinfer.cli.main import main
from vbinfer.io import npz
from vbinfer.neural.checkpoint import Checkpoint
from vbinfer.neural.fit_info import FitInfo
from vbinfer.reporting import ReportExtras
from vbinfer.study.folder import ReportInputs, load_inputs, rebuild, save_inputs
from vbinfer.study.study import Study

KEY = jax.random.key(3)
PRIOR = vb.Prior({"g": dist.Uniform(1.0, 3.0), "m": dist.Normal(0.5, 1.0)})
ONE_EPOCH = vb.densities.Training(max_epochs=1, batch_size=50)


def simulator(theta, key):
    return jnp.array([1.0, 2.0]) * theta["g"] + theta["m"] + jax.random.normal(key, (2,))


def log_likelihood(theta, x_o):
    return -0.5 * jnp.sum((x_o - jnp.array([1.0, 2.0]) * theta["g"] - theta["m"]) ** 2)


def sample(store, n=200):
    return vb.sample_prior_predictive(PRIOR, simulator, n, key=KEY, batch_size=64, store=store, progress=False)


@functools.cache
def draws():
    return sample(None)


@functools.cache
def fitted(kind):
    estimator = {
        "npe": vb.NPE(vb.densities.MDN(components=2, width=8, depth=1), training=ONE_EPOCH),
        "nle": vb.NLE(vb.densities.MDN(components=2, width=8, depth=1), training=ONE_EPOCH),
        "nre": vb.NRE(vb.neural.RatioClassifier(width=5, depth=1), training=ONE_EPOCH),
    }[kind]
    return estimator.fit(draws(), PRIOR, key=KEY)


def posterior():
    rng = np.random.default_rng(1)
    theta = {"g": rng.uniform(1.0, 3.0, (2, 50)), "m": rng.normal(0.5, 1.0, (2, 50))}
    stats = {"diverging": rng.uniform(size=(2, 50)) < 0.1}
    return vb.Posterior(theta, rng.normal(size=(2, 50)), stats, np.array([3.0, 5.5]), PRIOR, -3.5, {"method": "NUTS"})


def make_store(place):
    sample(place / "store")


def make_posterior(place):
    posterior().save(place / "posterior.npz")


def make_estimator(place):
    fitted("npe")[0].save(place / "estimator.npz")


def make_calibration(place):
    study = vb.calibrate(sources.Exact(), sources.make_draws(60, 0), key=KEY, num_posterior_samples=40)
    study.save(place / "calibration.npz")


def make_evidence(place):
    fit = fitted("npe")[1]
    assert isinstance(fit, FitInfo)
    signal = np.random.default_rng(2).normal(10.0, 2.0, (30, 3))
    recording = vb.Recording(signal, 720.0, ("a", "b", "c"), "scan")
    predictive = vb.Predictive(np.ones((4, 2)), ("x1", "x2"), None, np.ones(4, bool), {"g": np.full(4, 2.0)})
    extras = ReportExtras(notes={"seed": 3}, title="A study", sections=[vb.reporting.Section("One", text="two")])
    save_inputs(place / "evidence.npz", ReportInputs(fit, predictive, recording, {"g": 2.0, "m": 0.1}, extras))


def chains(place):
    return vb.sample_mcmc(
        PRIOR,
        log_likelihood,
        np.array([3.0, 5.5]),
        num_warmup=20,
        num_samples=20,
        num_chains=2,
        key=KEY,
        store=place / "chains",
        progress=False,
    )


def make_connectome(place):
    vb.Connectome.synthetic(6, key=KEY, asymmetric=True).save_tvb(place / "net.zip")


STATE = {"weights": jnp.arange(12.0).reshape(3, 4), "step": jnp.array(7)}


def checkpoint(place):
    return Checkpoint(place / "training.npz", {"estimator": "NPE"}, [np.arange(5.0)])


MAKE = {
    "store": make_store,
    "posterior": make_posterior,
    "estimator": make_estimator,
    "calibration": make_calibration,
    "evidence": make_evidence,
    "chains": chains,
    "connectome": make_connectome,
    "checkpoint": lambda place: checkpoint(place).write(STATE, np.zeros((2, 3))),
    "study": small_study.make,
}
READ = {  # artefacts with a SHA-256: not one byte may differ
    "posterior": lambda place: vb.load(place / "posterior.npz"),
    "estimator": lambda place: vb.load(place / "estimator.npz"),
    "calibration": lambda place: vb.load(place / "calibration.npz"),
    "evidence": lambda place: load_inputs(place / "evidence.npz"),
    "chains": lambda place: vb.load(place / "chains"),
    "checkpoint": lambda place: checkpoint(place).restore(STATE, np.zeros((2, 3))),
}


@functools.cache
def made(kind):
    place = Path(tempfile.mkdtemp(prefix=f"vbinfer-{kind}-"))
    MAKE[kind](place)
    return place


@pytest.fixture(scope="module", autouse=True)
def _tidy():
    yield
    for kind in MAKE:
        shutil.rmtree(made(kind), ignore_errors=True)
    made.cache_clear()


def refused(place, path, read):
    """The error of a file that is not what was written; there must be one."""
    _, error = attempt(lambda: read(place))
    assert error is not None, f"{path.name} was accepted"
    assert unclear(error, path.name) is None


def repaired(place, path, good):
    """A store: reading it is refused or harmless, and the same call makes it what it was."""
    found, error = attempt(lambda: vb.load(place / "store"))
    if error is None:
        assert np.array_equal(found.x[:200], draws().x)
    else:
        assert unclear(error, path.name, "store") is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = sample(place / "store")
    assert np.array_equal(again.x, draws().x)
    after = contents(place / "store")
    for name in good:
        if name.startswith("shard"):
            assert after[name] == good[name], name


def same_network(place, path):
    whole = vb.Connectome.from_tvb(made("connectome") / "net.zip")
    found, error = attempt(lambda: vb.Connectome.from_tvb(path))
    if error is not None:
        assert unclear(error, path.name) is None
    else:
        assert np.array_equal(found.weights, whole.weights)
        assert np.array_equal(found.tract_lengths, whole.tract_lengths)
        assert np.array_equal(found.centres, whole.centres)
        assert found.labels == whole.labels


def same_or_refused(place, path):
    """A text has no checksum: what is still a study is run as one, and the store of the first does not take it."""
    study, error = attempt(lambda: Study.from_toml(path))
    if error is not None:
        assert unclear(error, path.name, "[", "study file", "there is no file", "signal.csv") is None
        return
    assert tomllib.loads(path.read_text(encoding="utf-8"))
    whole = Study.from_toml(made("study") / "study.toml")
    store = place / "results" / "store"
    key = jax.random.key(study.seed)
    run = functools.partial(vb.sample_prior_predictive, n=8, key=jax.random.key(whole.seed), progress=False)
    first = run(whole.prior, whole.forward, store=store)
    again, error = attempt(
        lambda: vb.sample_prior_predictive(study.prior, study.forward, 8, key=key, store=store, progress=False)
    )
    if error is not None:
        assert "another study" in str(error)
    else:
        assert np.array_equal(again.x, first.x, equal_nan=True)


def harm(kind, seed, place):
    """Copy an artefact, harm one of its files, and look at what is said."""
    shutil.copytree(made(kind), place, dirs_exist_ok=True)
    files = [p for p in sorted(place.rglob("*")) if p.is_file() and p.stat().st_size]
    if kind == "study":
        files = [place / "study.toml"]
    path = files[seed % len(files)]
    good = contents(place / "store") if kind == "store" else {}
    what, content = harmed(path.read_bytes(), seed)
    path.write_bytes(content)
    print(f"{kind}, seed {seed}: {path.name}, {what}")
    if kind == "store":
        repaired(place, path, good)
    elif kind == "connectome":
        same_network(place, path)
    elif kind == "study":
        same_or_refused(place, path)
    else:
        refused(place, path, READ[kind])


@pytest.mark.parametrize("kind", [kind for kind in MAKE if kind != "study"])
def test_what_was_not_harmed_is_read(kind, tmp_path):
    shutil.copytree(made(kind), tmp_path, dirs_exist_ok=True)
    if kind in READ:
        READ[kind](tmp_path)
    elif kind == "store":
        assert np.array_equal(vb.load(tmp_path / "store").x[:200], draws().x)


@pytest.mark.parametrize("kind", list(MAKE))
@pytest.mark.parametrize("part", range(3))
def test_a_harmed_file_is_refused_or_repaired(kind, part, tmp_path):
    harm(kind, 7 * part + 100 * list(MAKE).index(kind), tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", list(MAKE))
def test_two_hundred_and_more(kind, seed, tmp_path):
    harm(kind, 1000 + seed + 100 * list(MAKE).index(kind), tmp_path)


def test_not_one_byte_of_an_artefact_may_differ(tmp_path):
    """Every byte: arrays, header, names, dates, directory, the number at the end."""
    path = tmp_path / "a.npz"
    npz.write(path, "draws", {"n": 3}, {"x": np.arange(5.0)})
    good = path.read_bytes()
    for i in range(len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :])
        with pytest.raises(ValueError, match=r"a\.npz .*(damaged|Restore)"):
            npz.read(path)


def test_a_header_alone_is_read_and_looked_at_alone(tmp_path):
    """Its own bytes are compared, those of the arrays are left to who reads them."""
    path = tmp_path / "a.npz"
    npz.write(path, "shard", {"start": 64}, {"x": np.full(50, 7.25)})
    assert npz.read_header(path)["start"] == 64
    good = path.read_bytes()
    path.write_bytes(good.replace(np.float64(7.25).tobytes(), np.float64(7.5).tobytes(), 1))
    assert npz.read_header(path)["start"] == 64
    with pytest.raises(ValueError, match="damaged"):
        npz.read(path)
    path.write_bytes(good.replace(b'"start": 64', b'"start": 65'))
    with pytest.raises(ValueError, match="damaged"):
        npz.read_header(path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["posterior", "evidence", "calibration"])
def test_a_report_of_a_harmed_folder_is_a_sentence(name, seed, tmp_path, capsys):
    """`vbinfer report`: status 1, the file and what to do, and no report in the place of the old one."""
    for kind in ("posterior", "evidence", "calibration", "estimator"):
        shutil.copytree(made(kind), tmp_path, dirs_exist_ok=True)
    (tmp_path / "report.html").write_text("old")
    path = tmp_path / f"{name}.npz"
    path.write_bytes(harmed(path.read_bytes(), 40 + seed)[1])
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("vbinfer: ")
    assert unclear(ValueError(said), path.name) is None
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_file_from_before_there_were_numbers_at_the_end_is_read(tmp_path):
    path, old = tmp_path / "new.npz", tmp_path / "old.npz"
    npz.write(path, "draws", {"n": 3}, {"x": np.arange(5.0)})
    kind, header, arrays = npz.read(path)
    del header["sealed"]
    text = np.frombuffer(npz.to_json(header).encode(), np.uint8)
    np.savez(old, header=text, **arrays)
    assert npz.read(old)[:2] == (kind, header)
    assert np.array_equal(npz.read(old)[2]["x"], np.arange(5.0))
    with np.load(path) as found:  # and the new ones are still plain npz
        assert np.array_equal(found["x"], np.arange(5.0))


def test_a_number_cut_off_is_not_a_file_from_before(tmp_path):
    path = tmp_path / "a.npz"
    npz.write(path, "draws", {"n": 3}, {"x": np.arange(5.0)})
    with np.load(path) as found:
        np.savez(path, **found)
    with pytest.raises(ValueError, match="damaged: some of its bytes are not those that were written"):
        npz.read(path)


# Headers that are JSON, but not of this version: entries that are missing, or of another type


def make_sbi(place):
    method = vb.neural.SbiEstimator(
        "NPE", network={"model": "maf", "hidden_features": 5}, training={"max_num_epochs": 1}
    )
    method.fit(draws(), PRIOR, key=KEY)[0].save(place / "sbi.npz")


HEADED = {
    "posterior": ("posterior.npz", make_posterior),
    "draws": ("draws.npz", lambda place: draws().save(place / "draws.npz")),
    "calibration": ("calibration.npz", make_calibration),
    "map": (
        "map.npz",
        lambda place: vb.approximate.fit_map(
            PRIOR, log_likelihood, np.array([3.0, 5.5]), num_starts=2, max_steps=5, key=KEY
        ).save(place / "map.npz"),
    ),
    "npe": ("npe.npz", lambda place: fitted("npe")[0].save(place / "npe.npz")),
    "nle": ("nle.npz", lambda place: fitted("nle")[0].save(place / "nle.npz")),
    "nre": ("nre.npz", lambda place: fitted("nre")[0].save(place / "nre.npz")),
    "sbi": ("sbi.npz", make_sbi),
    "evidence": ("evidence.npz", make_evidence),
    "chains": ("chains/chains.npz", chains),
    "chunk": ("chains/draws-000000.npz", chains),
    "checkpoint": ("training.npz", MAKE["checkpoint"]),
}
OTHERS = (None, 3, "word", [], {}, [[1, 2]])


def look(kind, place):
    if kind in ("chains", "chunk"):
        return vb.load(place / "chains")
    return READ[kind](place) if kind in ("evidence", "checkpoint") else vb.load(place / HEADED[kind][0])


SLOW = ("sbi", "nle", "nre", "map")  # to train or to build again


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in HEADED])
def test_a_header_of_another_make_is_refused_with_its_file_or_does_no_harm(kind, tmp_path):
    """Every entry once missing and once of another type, every array once missing: a sentence, or a load."""
    name, make = HEADED[kind]
    origin = "chains" if kind == "chunk" else kind
    if origin in MAKE:
        shutil.copytree(made(origin), tmp_path, dirs_exist_ok=True)
    else:
        make(tmp_path)
    path = tmp_path / name
    held, header, arrays = npz.read(path)
    entries = [entry for entry in header if entry not in ("kind", "format", "sealed")]
    refusals = 0
    for i, entry in enumerate([*entries, *entries, *arrays]):
        parts = {name: value for name, value in arrays.items() if name != entry or entry in entries}
        changed = {name: value for name, value in header.items() if name != entry}
        if len(entries) <= i < 2 * len(entries):
            changed[entry] = OTHERS[i % len(OTHERS)]
        npz.write(path, held, changed, parts)
        _, error = attempt(lambda: look(kind, tmp_path))
        if error is not None:
            refusals += 1
            assert unclear(error, path.name, "chains.npz") is None, entry
    assert refusals >= min(2, len(arrays))


def test_a_header_that_lacks_an_entry_says_which_and_who_wrote_it(tmp_path):
    path = tmp_path / "p.npz"
    posterior().save(path)
    _, header, arrays = npz.read(path)
    del header["theta"]
    npz.write(path, "posterior", header | {"versions": {"vbinfer": "0.0.9"}}, arrays)
    with pytest.raises(ValueError, match=r"p\.npz is whole, .* it has no 'theta'\. It was written by vbinfer 0\.0\.9"):
        vb.load(path)


def test_a_file_of_another_kind_in_its_place_is_refused(tmp_path):
    """A folder whose files were exchanged."""
    for kind in ("chains", "posterior"):
        shutil.copytree(made(kind), tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "posterior.npz", tmp_path / "chains" / "draws-000000.npz")
    with pytest.raises(ValueError, match=r"draws-000000\.npz holds a 'posterior'; expected a file of the folder"):
        vb.load(tmp_path / "chains")
    draws().save(tmp_path / "posterior.npz")
    with pytest.raises(ValueError, match=r"posterior\.npz holds a Draws; expected a Posterior: delete it"):
        rebuild(tmp_path)
