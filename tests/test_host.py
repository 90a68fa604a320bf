"""Simulators that are not JAX: each draw is its own, wherever it runs, and what identifies one knows all it uses."""

import functools
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
import time
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute.executor import Local
from vbinfer.execute.host import HostSimulator, generator
from vbinfer.io import fingerprint as fingerprints
from vbinfer.io.fingerprint import fingerprint as code_hash
from vbinfer.priors.prior import Prior

PRIOR = Prior({"g": dist.Uniform(0.5, 3.0), "m": dist.Normal(-2.0, 0.5).expand([2])})
KEY = jax.random.key(11)
STEPS, DT = 30, 0.1


def relax(theta, rng):
    """Ornstein-Uhlenbeck from 1 towards m[0] at rate g, Euler-Maruyama; fails where g is large."""
    v, total = 1.0, 0.0
    for dw in rng.normal(size=STEPS):
        v += DT * theta["g"] * (theta["m"][0] - v) + 0.4 * np.sqrt(DT) * dw
        total += v
    last = np.nan if theta["g"] > 2.8 else v
    return np.array([last, total / STEPS, theta["m"][1]])


def sample(store=None, n=40, fn=relax, width=16, executor=None, sim=None, **options):
    sim = sim or HostSimulator(fn, names=("last", "mean", "copy"), batch_width=width)
    return sample_prior_predictive(
        PRIOR, sim, n, key=KEY, store=store, executor=executor, progress=False, **{"batch_size": 2 * width, **options}
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".npz", ".json")}


def repeat_keys(seed, n):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


# ---- draws


def test_draws_are_those_of_a_numpy_loop_with_philox_keyed_by_the_words_of_each_draws_key(x64):
    draws = sample(n=50)
    for i in (0, 1, 15, 16, 49):
        words = [int(word) for word in jax.random.key_data(jax.random.split(jax.random.fold_in(KEY, i))[1])]
        rng = np.random.Generator(np.random.Philox(key=np.array([words[0] + 2**32 * words[1], 0], np.uint64)))
        noise, g, m = rng.normal(size=STEPS), float(draws.theta["g"][i]), draws.theta["m"][i].astype(float)
        path = [1.0]
        for w in noise:
            path.append(path[-1] + 0.1 * g * (float(m[0]) - path[-1]) + 0.4 * 0.1**0.5 * float(w))
        expected = np.array([np.nan if g > 2.8 else path[-1], sum(path[1:]) / STEPS, m[1]])
        np.testing.assert_allclose(draws.x[i], expected, rtol=1e-13 if x64 else 2e-7)
    assert draws.x.dtype == (np.float64 if x64 else np.float32)
    assert np.array_equal(draws.valid, draws.theta["g"] <= 2.8)
    assert 0 < draws.valid.sum() < 50


def test_one_draw_is_a_row_of_a_batch_and_a_key_of_four_words_has_another_stream():
    sim = HostSimulator(lambda theta, rng: rng.normal(size=3) + theta["g"])
    key = jax.random.key(5)
    assert np.array_equal(
        sim({"g": 1.5}, key),
        sim.batch({"g": np.array([7.0, 1.5])}, jnp.stack([key, key]))[1],
    )
    words = [3, 1, 4, 1]
    long, short = generator(words).normal(), generator(words[:2]).normal()
    assert long != short
    with jax.default_prng_impl("rbg"):
        key = jax.random.wrap_key_data(jnp.array(words, jnp.uint32))
    assert sim({"g": 0.0}, key)[0] == np.asarray(long, sim({"g": 0.0}, key).dtype)
    with pytest.raises(ValueError, match="a key of 5 words was given; expected up to four"):
        generator([1, 2, 3, 4, 5])


def test_the_store_is_the_same_fresh_resumed_threaded_and_from_workers(tmp_path):
    fresh = sample(tmp_path / "fresh", n=96)
    sample(tmp_path / "grown", n=20)
    grown = sample(tmp_path / "grown", n=96, executor=Local(workers=2))
    device = jax.local_devices()[0]
    sample(tmp_path / "threads", n=96, executor=Local((device, device)))
    assert contents(tmp_path / "grown") == contents(tmp_path / "fresh")
    assert contents(tmp_path / "threads") == contents(tmp_path / "fresh")
    assert (grown.info["read"], grown.info["simulated"]) == (32, 64)
    assert np.array_equal(grown.x, fresh.x, equal_nan=True)


def test_the_width_of_a_batch_changes_no_draw():
    one, other = sample(width=16), sample(width=5)
    assert np.array_equal(one.x, other.x, equal_nan=True)
    assert np.array_equal(one.theta["m"], other.theta["m"])


def test_the_former_name_of_the_batch_width_is_taken():
    assert HostSimulator(relax, lane=5).batch_width == 5
    with pytest.raises(ValueError, match="batch_width=16"):
        HostSimulator(relax, lane=0)


def test_what_was_finished_before_an_interruption_is_not_run_again(tmp_path):
    calls = tmp_path / "calls"

    def counted(theta, rng):
        with open(calls, "a", encoding="utf-8") as file:
            file.write("x")
        if calls.stat().st_size == 50 and not (tmp_path / "went").exists():
            (tmp_path / "went").touch()
            raise KeyboardInterrupt
        return relax(theta, rng)

    sims = [HostSimulator(counted, names=("last", "mean", "copy"), fingerprint="counted") for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "s", n=96, sim=sims[0])
    rest = sample(tmp_path / "s", n=96, sim=sims[1])
    assert rest.info["read"] == 48  # three batches of the 49 draws that were finished
    assert np.array_equal(rest.x, sample(n=96).x, equal_nan=True)


def test_a_simulator_with_a_scratch_buffer_is_right_on_several_devices():
    """Two threads in it at once would mix their draws: it sleeps between writing and reading."""
    scratch = np.zeros(1)

    def fn(theta, rng):
        scratch[0] = theta["g"]
        time.sleep(1e-4)
        return scratch.copy()

    device = jax.local_devices()[0]
    sim = HostSimulator(fn, fingerprint="scratch")
    draws = sample(n=96, sim=sim, executor=Local((device, device, device)))
    assert np.array_equal(draws.x[:, 0], draws.theta["g"])


def test_the_moments_given_theta_are_those_of_the_process():
    """Euler-Maruyama of an OU process is AR(1): mean m + (1 - m) a^T, variance s^2 (1 - a^2T) / (1 - a^2)."""
    n, g, m = 3_000, 1.7, -2.3
    x = HostSimulator(relax).batch({"g": np.full(n, g), "m": np.tile([m, 0.5], (n, 1))}, repeat_keys(3, n))[:, 0]
    a, s = 1.0 - DT * g, 0.4 * np.sqrt(DT)
    mean, var = m + (1.0 - m) * a**STEPS, s**2 * (1.0 - a ** (2 * STEPS)) / (1.0 - a**2)
    assert abs(x.mean() - mean) < 4.0 * np.sqrt(var / n)
    assert abs(x.var() / var - 1.0) < 4.0 * np.sqrt(2.0 / n)
    r = np.corrcoef(x[1:], x[:-1])[0, 1]  # neighbours in the batch share no noise
    assert abs(r) < 4.0 / np.sqrt(n)


def test_theta_arrives_as_float64_numbers_and_arrays_and_may_be_changed():
    seen = []

    def fn(theta, rng):
        seen.append((type(theta["g"]), theta["m"].dtype, theta["m"].shape))
        theta["m"] *= 0.0
        theta["g"] = None
        return [1.0]

    theta = {"g": jnp.array([0.1, 0.2]), "m": jnp.ones((2, 2))}
    HostSimulator(fn, fingerprint="seen").batch(theta, repeat_keys(0, 2))
    assert set(seen) == {(np.float64, np.dtype(np.float64), (2,))}
    assert len(seen) == 3  # the first one twice
    assert theta["m"].sum() == 4.0


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_or_too_large_make_a_failed_draw(value, x64):
    prior = Prior({"g": dist.Uniform(0.0, 1.0)})
    sim = HostSimulator(lambda theta, rng: [value if theta["g"] > 0.5 else 1.0])
    draws = sample_prior_predictive(prior, sim, 32, key=KEY, progress=False)
    expected = draws.theta["g"] <= 0.5 if not (x64 and value == 1e300) else np.ones(32, bool)
    assert np.array_equal(draws.valid, expected)


# ---- what goes wrong


def test_an_error_says_for_which_draw_and_the_line_to_repeat_it():
    def fn(theta, rng):
        theta["m"][:] = 0.0
        u = rng.uniform()
        if u < 0.2:
            raise FloatingPointError(f"diverged at {u!r}")
        return u

    sim = HostSimulator(fn, batch_width=64)
    theta = {"g": np.linspace(0.1, 0.9, 64, dtype=np.float32), "m": np.arange(128.0).reshape(64, 2) / 7}
    with pytest.raises(FloatingPointError, match=r"diverged at") as first:
        sim.batch(theta, repeat_keys(1, 64))
    note = first.value.__notes__[-1]
    row = int(re.search(r"row (\d+) of a batch", note)[1])
    assert repr(float(theta["m"][row, 1])) in note
    with pytest.raises(FloatingPointError) as second:
        eval(note.partition("repeat it: ")[2], {"simulator": sim, "np": np, "jax": jax})
    assert str(second.value) == str(first.value)


def test_the_note_of_an_error_arrives_from_a_worker():
    def fn(theta, rng):
        raise FloatingPointError("diverged")

    with pytest.raises(FloatingPointError) as error:
        sample(n=32, sim=HostSimulator(fn), executor=Local(workers=1))
    assert "to repeat it: simulator({'g': " in "".join(error.value.__notes__)


@pytest.mark.parametrize(
    ("output", "error", "said"),
    [
        (lambda: None, TypeError, r"returned None.*return x"),
        (lambda: {"a": 1.0}, TypeError, r"returned a dict.*np\.array"),
        (lambda: "abc", TypeError, "returned a str"),
        (lambda: [object()], TypeError, r"array of object.*np\.array\(\[\.\.\.\], float\)"),
        (lambda: [10**400], TypeError, "array of object"),
        (lambda: np.array([1.0 + 2.0j]), TypeError, r"complex128.*x\.real, x\.imag"),
        (lambda: [[1.0], [2.0, 3.0]], ValueError, "a list that is no array"),
        (lambda: np.ones((2, 3)), ValueError, r"shape \[2, 3\] for one draw.*x\.ravel\(\)"),
        (lambda: np.ones(0), ValueError, r"shape \[0\] for one draw"),
    ],
)
def test_outputs_that_are_no_features_are_refused_with_the_line_to_write(output, error, said):
    sim = HostSimulator(lambda theta, rng: output(), fingerprint="bad")
    with pytest.raises(error, match=said):
        sim.batch({"g": np.ones(2)}, repeat_keys(0, 2))


def test_outputs_of_changing_length_are_refused_within_a_batch_and_between_batches():
    sim = HostSimulator(lambda theta, rng: np.ones(int(theta["g"])))
    with pytest.raises(ValueError, match=r"returned 3 numbers in row 1 of a batch and 2 before.*fill up with NaN"):
        sim.batch({"g": np.array([2.0, 3.0])}, repeat_keys(0, 2))
    sim = HostSimulator(lambda theta, rng: np.ones(int(theta["g"])))
    sim.batch({"g": np.array([2.0, 2.0])}, repeat_keys(0, 2))
    with pytest.raises(ValueError, match="returned 4 numbers in row 0"):
        sim.batch({"g": np.array([4.0, 4.0])}, repeat_keys(0, 2))
    with pytest.raises(ValueError, match="names 2 features but returned 1"):
        HostSimulator(lambda theta, rng: 1.0, names=("a", "b")).batch({"g": np.ones(1)}, repeat_keys(0, 1))


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: HostSimulator(3), TypeError, r"a int was given; expected a function fn\(theta, rng\)"),
        (lambda: HostSimulator(lambda theta: 1.0), TypeError, r"lambda theta, rng: <lambda>\(\.\.\.\)"),
        (lambda: HostSimulator(HostSimulator(relax)), TypeError, "a simulator already"),
        (lambda: HostSimulator(relax, batch_width=0), ValueError, "batch_width=0 was given"),
        (lambda: HostSimulator(relax, names="last"), ValueError, r"names='last' was given.*\('mean', 'sd'\)"),
        (lambda: HostSimulator(relax, names=("a", "a")), ValueError, "one different name per feature"),
        (lambda: HostSimulator(relax, fingerprint=""), ValueError, "fingerprint='my-model-v3'"),
        (
            lambda: HostSimulator(lambda theta, rng, file=sys.stdout: file),
            TypeError,
            r"fn > a default.*HostSimulator\(fn, fingerprint='my-model-v3'\)",
        ),
        (
            lambda: HostSimulator(functools.partial(lambda r, theta, rng: r.normal(), np.random.default_rng(0))),
            TypeError,
            r"is a random generator.*use the one that the simulator is given",
        ),
    ],
)
def test_what_is_no_simulator_is_refused_at_once(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_keys_may_be_of_either_kind_and_are_one_per_row():
    sim = HostSimulator(lambda theta, rng: rng.normal() + theta["g"])
    theta = {"g": np.zeros(3)}
    legacy = jax.random.split(jax.random.PRNGKey(4), 3)
    assert np.array_equal(sim.batch(theta, legacy), sim.batch(theta, jax.random.split(jax.random.key(4), 3)))
    with pytest.raises(ValueError, match=r"theta\['g'\] is \[3\] but there are 2 keys"):
        sim.batch(theta, legacy[:2])
    with pytest.raises(ValueError, match=r"theta\['g'\] is \[\] but there are 3 keys"):
        sim.batch({"g": np.float32(1.0)}, legacy)
    with pytest.raises(TypeError, match=r"keys is an array of shape \[\]; expected one JAX key per row: write jax"):
        sim.batch(theta, jax.random.key(0))
    with pytest.raises(TypeError, match=r"keys is 3; expected"):
        sim.batch(theta, 3)


def test_jax_transformations_are_refused():
    sim = HostSimulator(lambda theta, rng: theta["g"])
    for wrap in (jax.jit, lambda f: jax.vmap(f, in_axes=(None, 0))):
        with pytest.raises(TypeError, match=r"not a JAX program.*Call simulator\.batch"):
            wrap(sim)({"g": jnp.ones(())}, repeat_keys(0, 2) if wrap is not jax.jit else KEY)
    with pytest.raises(TypeError, match="not a JAX program"):
        jax.grad(lambda g: sim({"g": g}, KEY)[0])(1.0)


@pytest.mark.parametrize("draw", [lambda: np.random.normal(), lambda: np.random.default_rng().normal()])
def test_randomness_from_elsewhere_is_noticed_at_the_first_draw(draw):
    sim = HostSimulator(lambda theta, rng: theta["g"] + draw(), fingerprint="elsewhere")
    with pytest.warns(UserWarning, match=r"two answers for the same theta.*cannot be repeated.*fn\(theta, rng\)"):
        sim.batch({"g": np.ones(3)}, repeat_keys(0, 3))


# ---- fingerprint


def made(source, name="f", file="<one>"):
    names = {"np": np, "functools": functools, "__name__": "made_here"}
    exec(compile(textwrap.dedent(source), file, "exec"), names)
    return names[name]


BASE = '''
W = np.array([1.0, 2.0])
TABLE = {"rate": 0.5, "kinds": frozenset({"a", "b", "c", "d"})}
def helper(v, power=2):
    return v ** power
class Part:
    offset = 1.0
    def shift(self, v):
        return v + self.offset
class Model(Part):
    def __init__(self, scale):
        self.scale = scale
    def __call__(self, theta, rng):
        return self.scale * self.shift(theta["g"])
def outer(k, scale=3.0):
    """Explains."""
    def f(theta, rng, *, shift=4.0):
        """Explains too."""
        inside = lambda v: v + 5.0
        keys = "".join("x" for _ in range(3))
        return helper(W @ W) * k + inside(theta["g"]) + TABLE["rate"] + shift + ("a" in {"a", "b"}) + len(keys)
    return f
f = outer(np.array([7.0, 8.0]))
model = Model(np.array([1.0, 9.0]))
method = model.shift
partial = functools.partial(helper, power=6)
cached = functools.lru_cache(helper)
'''


@pytest.mark.parametrize("name", ["f", "model", "method", "partial", "cached"])
def test_place_comments_and_names_of_the_function_are_not_part_of_the_fingerprint(name):
    moved = "# a comment\n\n\n" + BASE.replace("    return v ** power", "    # another\n\n    return v ** power")
    moved = moved.replace('"""Explains."""', '"""Says it otherwise."""').replace("too.", "also.")
    assert code_hash(made(moved, name, "/elsewhere/renamed.py")) == code_hash(made(BASE, name))
    renamed = BASE.replace("def f(", "def g(").replace("return f\n", "return g\n")
    assert code_hash(made(renamed, "f")) == code_hash(made(BASE, "f"))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("f", "v ** power", "v * power"),
        ("f", "power=2", "power=3"),
        ("f", "[1.0, 2.0]", "[1.0, 2.0000000000000004]"),
        ("f", "[1.0, 2.0]", "[1.0, 2.0], np.float32"),
        ("f", '"rate": 0.5', '"rate": 0.6'),
        ("f", "[7.0, 8.0]", "[7.0, 8.5]"),
        ("f", "shift=4.0", "shift=4.5"),
        ("f", "v + 5.0", "v + 5.5"),
        ("f", '"x" for', '"y" for'),
        ("f", '{"a", "b"})', '{"a", "e"})'),
        ("f", "W @ W", "W @ W.T"),
        ("model", "offset = 1.0", "offset = -1.0"),
        ("model", "v + self.offset", "v - self.offset"),
        ("model", "[1.0, 9.0]", "[9.0, 1.0]"),
        ("model", "self.scale * self", "self.scale + self"),
        ("method", "[1.0, 9.0]", "[1.0, 9.5]"),
        ("partial", "power=6", "power=7"),
        ("partial", "v ** power", "v + power"),
        ("cached", "v ** power", "v + power"),
    ],
)
def test_every_change_of_what_is_computed_changes_the_fingerprint(name, old, new):
    assert BASE.count(old) >= 1
    assert code_hash(made(BASE.replace(old, new), name)) != code_hash(made(BASE, name))


def test_negative_zero_whole_numbers_and_truth_values_are_constants_of_their_own():
    assert code_hash(made("f = lambda theta, rng: 0.0")) != code_hash(made("f = lambda theta, rng: -0.0"))
    assert code_hash(made("f = lambda theta, rng: 1")) != code_hash(made("f = lambda theta, rng: 1.0"))
    assert code_hash(made("f = lambda theta, rng: 1")) != code_hash(made("f = lambda theta, rng: True"))


def test_functions_that_call_each_other_have_a_fingerprint():
    source = """
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)
    def f(theta, rng): return even(int(theta["n"]))
    """
    assert code_hash(made(source)) == code_hash(made(source))
    assert code_hash(made(source.replace("n != 0", "n > 0"))) != code_hash(made(source))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("line", "call"), [("import {m}", "{m}.step"), ("from {m} import step", "step")])
def test_a_module_of_the_users_counts_by_what_is_used_of_it(tmp_path, monkeypatch, line, call, inside):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def hashed(text):
        importlib.invalidate_caches()
        sys.modules.pop("users_own", None)
        (tmp_path / "users_own.py").write_text(text)
        place = "def f(theta, rng):\n    {line}\n" if inside else "{line}\ndef f(theta, rng):\n"
        source = place + "    return {call}(theta['g'])"
        names = {key: value.format(m="users_own") for key, value in {"line": line, "call": call}.items()}
        return code_hash(made(source.format(**names)))

    base = "GAIN = 2.0\ndef step(v):\n    return GAIN * v\n"
    try:
        first = hashed(base)
        assert hashed("# said\n" + base) == first
        assert hashed(base.replace("GAIN * v", "GAIN * v + 1")) != first
        assert hashed(base.replace("2.0", "3.00")) != first
    finally:
        sys.modules.pop("users_own", None)


def test_installed_packages_count_by_version(monkeypatch):
    f = made("f = lambda theta, rng: np.exp(theta['g'])")
    before = code_hash(f)
    monkeypatch.setattr(fingerprints, "_version", lambda name: (name, "99.0"))
    assert code_hash(f) != before
    monkeypatch.undo()
    assert code_hash(f) == before
    assert code_hash(made("from scipy.special import expit\nf = lambda theta, rng: expit(theta['g'])")) != code_hash(
        made("from scipy.special import logit as expit\nf = lambda theta, rng: expit(theta['g'])")
    )


def test_code_without_a_module_and_files_called_like_the_standard_library_count_by_content(tmp_path, monkeypatch):
    def without_name(offset):
        names = {}
        exec(f"class A:\n    def f(self, v): return v + {offset}\nf = lambda theta, rng: A().f(1.0)", names)
        return code_hash(names["f"])

    assert without_name(1) != without_name(2)
    assert without_name(1) == without_name(1)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sched", raising=False)
    (tmp_path / "sched.py").write_text("def step(v): return 2 * v")
    try:
        import sched

        fingerprints.installed.cache_clear()
        first = code_hash(made("import sched\nf = lambda theta, rng: sched.step(1)"))
        sched.step = made("f = lambda v: 3 * v")
        assert code_hash(made("import sched\nf = lambda theta, rng: sched.step(1)")) != first
    finally:
        sys.modules.pop("sched", None)
        fingerprints.installed.cache_clear()


def test_functions_of_a_notebook_count_by_content(monkeypatch):
    """Its `__main__` is the kernel's launcher, which is installed: they were once taken by name and version."""
    main = types.ModuleType("__main__")
    main.__file__ = np.__file__
    monkeypatch.setitem(sys.modules, "__main__", main)
    fingerprints.installed.cache_clear()

    def cell(source):
        exec(source + "\ndef f(theta, rng): return helper(theta['g']) + Part.offset", main.__dict__)
        return code_hash(main.f)

    first = cell("def helper(v): return 2 * v\nclass Part: offset = 1")
    assert cell("def helper(v): return 3 * v\nclass Part: offset = 1") != first
    assert cell("def helper(v): return 2 * v\nclass Part: offset = 2") != first
    assert cell("def helper(v): return 2 * v\nclass Part: offset = 1") == first


def test_what_stands_in_for_an_installed_module_counts_as_that_whatever_it_has_loaded(monkeypatch):
    """TVB's models are such an object: its attributes appear as they are used, so that a store refused itself."""
    lazy = types.SimpleNamespace(__name__="numpy.lazy")
    monkeypatch.setitem(sys.modules, "numpy.lazy", lazy)
    before = code_hash(lambda theta, rng: lazy.part)
    lazy.part = open  # any object
    assert code_hash(lambda theta, rng: lazy.part) == before


def test_what_pickle_keeps_of_an_object_counts_also_where_c_code_holds_it():
    pd = pytest.importorskip("pandas")
    one, other = pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [1.0, 3.0]})
    hashed = [code_hash(lambda theta, rng, table=table: table) for table in (one, other, one.copy())]
    assert hashed[0] != hashed[1]
    assert hashed[0] == hashed[2]


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from {module} import f
from vbinfer.io.fingerprint import fingerprint
print(fingerprint(f))
"""


def test_the_fingerprint_is_the_same_in_another_process_and_under_another_file_name(tmp_path):
    text = "import functools\nimport numpy as np\n" + BASE
    found = set()
    for seed, module in (("1", "first_name"), ("77", "second_name")):
        (tmp_path / f"{module}.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path), module=module)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(vb.__file__).parent.parent)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    spec = importlib.util.spec_from_file_location("third_name", tmp_path / "first_name.py")
    here = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(here)
    assert found == {code_hash(here.f)}


def test_a_store_of_a_simulator_that_changed_is_refused(tmp_path):
    source = "def helper(v): return v * 2.0\ndef f(theta, rng): return [helper(theta['g']), rng.normal(), 0.0]"
    sample(tmp_path / "s", n=16, fn=made(source))
    sample(tmp_path / "s", n=16, fn=made("\n\n" + source, file="moved.py"))
    with pytest.raises(ValueError, match="simulator: the store has"):
        sample(tmp_path / "s", n=16, fn=made(source.replace("2.0", "2.5")))


# ---- where else a simulator is taken


def test_predictive_draws_sensitivity_and_calibration_take_a_host_simulator():
    """x ~ N(g, 0.5^2) under g ~ N(1, 2^2): the exact posterior, its predictive and Fisher information are known."""
    prior = Prior({"g": dist.Normal(1.0, 2.0)})
    sim = HostSimulator(lambda theta, rng: [theta["g"] + 0.5 * rng.normal(), theta["g"] + 0.5 * rng.normal()])
    precision = 1 / 4.0 + 2 / 0.25

    def source(x_o, n, key):
        mean = (1.0 / 4.0 + np.asarray(x_o).sum() / 0.25) / precision
        theta = mean + jax.random.normal(key, (1, n)) / np.sqrt(precision)
        return vb.Posterior({"g": np.asarray(theta)}, prior=prior, x_o=np.asarray(x_o))

    posterior = source(np.array([2.0, 3.0]), 2_000, jax.random.key(1))
    predictive = vb.posterior_predictive(posterior, sim, n=1_500, key=jax.random.key(2))
    centre, spread = (0.25 + 20.0) / precision, np.sqrt(1 / precision + 0.25)
    assert abs(predictive.x.mean() - centre) < 5.0 * spread / np.sqrt(1_500)
    assert predictive.x[:, 0].std() == pytest.approx(spread, rel=0.08)
    calibration = vb.diagnostics.sbc(source, sample_prior_predictive(prior, sim, 300, key=KEY, progress=False), key=KEY)
    assert calibration.verdict != "fail"
    found = vb.diagnostics.sensitivity(posterior, sim, key=jax.random.key(3), num_repeats=400)
    nats = 0.5 * np.log1p(2 * 2.0**2 / 0.5**2)  # z = (g - 1) / 2 moves both features by 2, seen with sd 0.5
    assert found.information.total == pytest.approx(nats, rel=0.05)
    near = vb.approximate.smc_abc(
        prior, sim, np.array([2.0, 3.0]), key=jax.random.key(4), num_particles=200, epsilon=0.5
    )
    assert abs(near.theta["g"].mean() - (0.25 + 20.0) / precision) < 0.15


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dask_cluster_makes_the_same_store_also_with_two_threads_in_a_worker(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.Client(**options, set_as_default=False) as client:
        sample(tmp_path / "dask", n=96, executor=vb.Dask(client))
    sample(tmp_path / "here", n=96)
    assert contents(tmp_path / "dask") == contents(tmp_path / "here")


PAGE = Path(vb.__file__).parent.parent / "docs/how-to/a-simulator-of-your-own.md"


def pieces():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_page_draws_resumes_and_repeats_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in pieces()[:3]:
        quick = code.replace("n=256", "n=32, progress=False").replace("n=1_000", "n=80, progress=False")
        exec(compile(quick.replace("vb.Local(workers=2)", "vb.Local()"), PAGE.name, "exec"), names)
    assert capsys.readouterr().out == "32 draws from the store, 48 new ones\n"
    assert np.isfinite(names["draws"].x).all()
    # exact: the stationary covariance S of v' = M v + e, Cov(e) = 0.25 dt, is that of M S M' + 0.25 dt = S
    from scipy.linalg import solve_discrete_lyapunov

    theta, x = names["draws"].usable()
    exact = []
    for g, rate in zip(theta["G"].astype(float), theta["rate"].astype(float), strict=True):
        step = np.array([[1.0 - 0.05 * rate, 0.05 * g * 0.8], [0.05 * g * 0.3, 1.0 - 0.05 * rate]])
        exact.append(0.5 * np.log(np.diag(solve_discrete_lyapunov(step, 0.25 * 0.05 * np.eye(2)))))
    for node in (0, 1):
        error = x[:, node] - np.array(exact)[:, node]
        assert error.std() < 0.15  # 90 ms of a process that forgets within 1 ms or so
        assert abs(error.mean()) < 0.05
    assert np.std(exact, axis=0).min() > 0.2  # a constant would not pass


@pytest.mark.slow
def test_the_page_comes_to_a_posterior_that_knows_the_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in pieces()[:5]:
        exec(compile(code, PAGE.name, "exec"), names)
    rows = {row.name: row for row in names["posterior"].summary()}
    assert rows["rate"].shrinkage > 0.8
    assert rows["G"].shrinkage > 0.5
    assert abs(rows["rate"].mean - 0.8) < 3.0 * rows["rate"].sd
    assert abs(rows["G"].mean - 0.7) < 3.0 * rows["G"].sd
    assert names["calibration"].verdict in ("pass", "warn")


@pytest.mark.parity
def test_tvb_itself_is_a_simulator_whose_draws_can_be_repeated(tmp_path):
    pytest.importorskip("tvb")
    names = {"np": np, "vb": vb}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TVB's own, when it is imported
        exec(compile(pieces()[-1], PAGE.name, "exec"), names)
    prior, sim = Prior({"coupling.G": dist.Uniform(0.1, 0.9)}), names["simulator"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        here = sample_prior_predictive(prior, sim, 8, key=KEY, store=tmp_path / "here", progress=False)
    sample_prior_predictive(prior, sim, 8, key=KEY, store=tmp_path / "there", progress=False, executor=Local(workers=1))
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert np.unique(here.x[:, 0]).size == 8
    theta = {"coupling.G": np.linspace(0.1, 0.9, 8)}
    x = sim.batch(theta, repeat_keys(0, 8))
    assert np.corrcoef(theta["coupling.G"], x[:, 2])[0, 1] > 0.8  # coupling excites
