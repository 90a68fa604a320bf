"""The report: which status each kind of evidence gives, and a page that is whole, safe and equal to its JSON."""

import dataclasses
import html
import json
import re
import types

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

from vbinfer.diagnostics.figure import Graph
from vbinfer.diagnostics.result import worst
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.features.dynamics import fcd_matrix
from vbinfer.features.matrices import fc_matrix
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.reporting import Recovery, ReportExtras, Section, report
from vbinfer.reporting.brain import MOST_EDGES, connections, views
from vbinfer.reporting.evidence import Evidence
from vbinfer.reporting.features import data, percentile
from vbinfer.reporting.parameters import Parameters
from vbinfer.reporting.questions import topics
from vbinfer.reporting.sections import Image

NAMES = ("fc.mean", "fc.std", "fcd.var")
TRUTH = {"coupling.G": 0.31, "model.w": 0.66}
SD = 0.02
LEARNED, INSIDE, RECOVERS, CONVERGED, PREDICTS, FAILED = (
    "What was learned",
    "Is the recording",
    "Does the estimator",
    "Did training",
    "Does the posterior",
    "Did simulations",
)


def simulate(theta, rng):
    """Three features, the first two nearly theta."""
    g, w = (np.asarray(theta[name]) for name in TRUTH)
    x = np.stack([g, w, g * w], axis=-1)
    return x + SD * rng.normal(size=x.shape)


def make_fit(**changes) -> FitInfo:
    epochs = np.arange(40.0)
    loss = 2.0 + 1.5 * np.exp(-epochs / 8.0)
    content = {
        "method": "NPE",
        "backend": "jax",
        "train": loss,
        "val": loss + 0.05,
        "best_epoch": 40,
        "info_gain": 2.1,
        "converged": True,
        "num_train": 450,
        "num_val": 50,
        "seconds": 3.2,
        "versions": {"flowjax": "19.1.2"},
    }
    return FitInfo(**(content | changes))


@pytest.fixture(scope="module")
def prior():
    return Prior({"coupling.G": dist.Uniform(0.0, 0.5), "model.w": dist.Normal(0.6, 0.1)})


@pytest.fixture(scope="module")
def good(prior):
    """Everything a report can be given, from a world where the estimator is exactly right."""
    rng = np.random.default_rng(4)
    theta = {name: np.asarray(value) for name, value in prior.sample(key=jax.random.key(1), n=500).items()}
    draws = Draws.from_arrays(theta, simulate(theta, rng), NAMES)
    x_o = simulate(TRUTH, rng)
    around = {name: x_o[i] + SD * rng.normal(size=(1, 800)) for i, name in enumerate(TRUTH)}
    posterior = Posterior(around, x_o=x_o, prior=prior, info={"method": "exact", "key": [0, 5]})
    some = {name: value[0, :60] for name, value in around.items()}
    truths = {name: value[:20] for name, value in theta.items()}
    seen = simulate(truths, rng)
    asked = {name: seen[:, i, None] + SD * rng.normal(size=(20, 400)) for i, name in enumerate(TRUTH)}
    mixing = rng.normal(size=(6, 6))
    ys = rng.normal(size=(60, 150, 6)) @ mixing
    prior_ys = rng.normal(size=(40, 150, 6)) @ rng.normal(size=(6, 6))
    every = np.ones(60, bool)
    return {
        "posterior": posterior,
        "draws": draws,
        "fit": make_fit(),
        "predictive": Predictive(simulate(some, rng), NAMES, ys, every, some),
        "observed": types.SimpleNamespace(
            values=rng.normal(size=(150, 6)) @ mixing + 7.0, period=720.0, labels=tuple("abcdef")
        ),
        "extras": ReportExtras(
            prior_predictive=Predictive(draws.x[:40], NAMES, prior_ys, every[:40], {}),
            recovery=Recovery(truths, asked),
            replicates={"segment 2": posterior},
            structural=np.abs(rng.normal(size=(6, 6))),
            notes={"command": "vbinfer demo"},
            fcd=(30e3, 5e3),
        ),
    }


def lights(**inputs):
    found = topics(Evidence(prior=inputs["posterior"].prior, **inputs))
    return {check.question: check for topic in found for check in topic.checks}


def light(start, **inputs):
    found = [check for question, check in lights(**inputs).items() if question.startswith(start)]
    assert len(found) == 1, start
    return found[0]


@pytest.mark.smoke
def test_a_right_estimator_passes_every_question(good):
    found = lights(**good)
    assert len(found) == 6
    assert {question: check.light for question, check in found.items() if check.light != "pass"} == {}


def _prior_again(g):
    wide = {name: np.asarray(v)[None] for name, v in g["posterior"].prior.sample(key=jax.random.key(9), n=800).items()}
    return g | {"posterior": dataclasses.replace(g["posterior"], theta=wide)}


def _one_unlearned(g):
    theta = dict(_prior_again(g)["posterior"].theta) | {"coupling.G": g["posterior"].theta["coupling.G"]}
    return g | {"posterior": dataclasses.replace(g["posterior"], theta=theta)}


def _at_the_edge(g):
    theta = dict(g["posterior"].theta) | {"coupling.G": np.linspace(0.48, 0.5, 800)[None]}
    return g | {"posterior": dataclasses.replace(g["posterior"], theta=theta)}


def _recording(g, x_o):
    return g | {"posterior": dataclasses.replace(g["posterior"], x_o=np.asarray(x_o))}


def _biased(g, shift):
    recovery = g["extras"].recovery
    moved = {name: value + shift for name, value in recovery.theta.items()}
    return g | {"extras": dataclasses.replace(g["extras"], recovery=Recovery(recovery.theta_true, moved))}


def _failing(g, above):
    draws = g["draws"]
    x = np.where((draws.theta["coupling.G"] > above)[:, None], np.nan, draws.x)
    return g | {"draws": Draws.from_arrays(draws.theta, x, NAMES)}


def _swapped(g):
    """A posterior predictive FC that is the prior's, and the other way round."""
    post, extras = g["predictive"], g["extras"]
    ys = np.concatenate([extras.prior_predictive.ys, extras.prior_predictive.ys[:20]])
    swapped = dataclasses.replace(extras.prior_predictive, ys=post.ys[:40])
    return g | {
        "predictive": dataclasses.replace(post, ys=ys),
        "extras": dataclasses.replace(extras, prior_predictive=swapped),
    }


CASES = {
    "nothing learned": (_prior_again, LEARNED, "fail", "Nothing learned"),
    "no information gain": (lambda g: g | {"fit": make_fit(info_gain=-0.1)}, LEARNED, "fail", "Nothing learned"),
    "one parameter unlearned": (_one_unlearned, LEARNED, "warn", "model.w: nothing learned"),
    "at the edge of the prior": (_at_the_edge, LEARNED, "warn", "edge: coupling.G"),
    "far from the model": (lambda g: _recording(g, [3.0, 0.6, 0.2]), INSIDE, "fail", "fc.mean"),
    "a feature that is NaN": (lambda g: _recording(g, [np.nan, 0.6, 0.2]), INSIDE, "fail", "fc.mean"),
    "biased by half a sd": (lambda g: _biased(g, 0.6 * SD), RECOVERS, "pass", "known truths"),
    "biased by 1.3 sd": (lambda g: _biased(g, 1.3 * SD), RECOVERS, "warn", "known truths"),
    "biased by 2.5 sd": (lambda g: _biased(g, 2.5 * SD), RECOVERS, "fail", "known truths"),
    "ran out of epochs": (lambda g: g | {"fit": make_fit(converged=False)}, CONVERGED, "warn", "not converged"),
    "untrained": (
        lambda g: g | {"fit": make_fit(converged=False, info_gain=-3.0)},
        CONVERGED,
        "fail",
        "no better than the prior",
    ),
    "overfitted": (lambda g: g | {"fit": make_fit(val=make_fit().train + 1.4)}, CONVERGED, "warn", "overfitted"),
    "exploded": (lambda g: g | {"fit": make_fit(val=np.full(40, np.nan))}, CONVERGED, "fail", "no finite"),
    "predicts another recording": (lambda g: _recording(g, [0.1, 0.4, 0.05]), PREDICTS, "fail", "0 of 3"),
    "prior predicts FC better": (_swapped, PREDICTS, "warn", "r ="),
    "a few failed": (lambda g: _failing(g, 0.45), FAILED, "warn", "coupling.G between 0.45 and 0.5"),
    "most failed": (lambda g: _failing(g, 0.2), FAILED, "fail", "failed"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_turns_its_light(good, name):
    change, question, expected, words = CASES[name]
    check = light(question, **change(good))
    assert check.light == expected, check.sentence
    assert words in check.sentence


def _chains(spread=0.0, diverging=0, num=4):
    """Chains around the truth with everything that NUTS records; the last `spread` away, the third `diverging`."""
    rng = np.random.default_rng(0)
    theta = {name: np.float64(value) + SD * rng.normal(size=(num, 500)) for name, value in TRUTH.items()}
    theta = {name: value + np.eye(num)[-1][:, None] * spread for name, value in theta.items()}
    divergent = np.zeros((num, 500), bool)
    divergent[2, :diverging] = True
    stats = {"diverging": divergent, "energy": rng.normal(size=(num, 500)), "accept_prob": np.full((num, 500), 0.8),
             "num_steps": np.full((num, 500), 7), "step_size": np.full((num, 500), 0.4)}  # fmt: skip
    return Posterior(theta, sample_stats=stats, info={"kernel": {"max_tree_depth": 10, "target_accept": 0.8}})


def test_chains_that_disagree_fail_and_chains_that_agree_pass():
    assert light("Did the chains mix", posterior=_chains()).light == "pass"
    assert light("Did the chains mix", posterior=_chains(spread=0.2)).light == "fail"
    check = light("Did the chains mix", posterior=_chains(diverging=3))
    assert check.light == "warn"
    assert "3 of 2000 transitions diverged" in check.sentence
    assert check.evidence == "#chains"
    assert "mix" not in str(lights(posterior=Posterior({"a": np.linspace(0.0, 1.0, 50)[None]})))


def test_the_page_opens_with_what_was_learned_and_of_what_nothing_was(good, tmp_path):
    g = _one_unlearned(good)
    extras = dataclasses.replace(g["extras"], units={"coupling.G": "mV"})
    g = g | {"extras": extras}
    topic = topics(Evidence(prior=g["posterior"].prior, **g))[0]
    draws = np.asarray(g["posterior"].theta["coupling.G"])
    said = topic.numbers["answer"]
    found = re.fullmatch(
        r"The data say: coupling\.G = ([\d.]+) \+- ([\d.]+) mV \(prior [\d.]+ \+- [\d.]+\); "
        r"about (.+) nothing was learned\.",
        said.replace("\u00b1", "+-"),
    )
    assert found, said
    assert float(found[1]) == pytest.approx(draws.mean(), abs=draws.std())
    assert float(found[2]) == pytest.approx(draws.std(), rel=0.5)
    assert "coupling.G" not in found[3]


def test_a_map_leaves_room_for_the_numbers_of_the_whole_brain():
    """Of 31 parameters 12 are drawn: G, of which least was learned, and the regions that shrank most."""
    rng = np.random.default_rng(0)
    sd = np.linspace(0.9, 0.1, 30)
    prior = Prior({"eta": dist.Normal(0.0, 1.0).expand([30]).to_event(1), "G": dist.Normal(0.0, 1.0)})
    theta = {"eta": sd * rng.normal(size=(1, 500, 30)), "G": 0.95 * rng.normal(size=(1, 500))}
    shown = Parameters.of(Evidence(Posterior(theta, prior=prior), prior)).most_shrunk
    assert len(shown) == 12
    assert shown == [*range(19, 30), 30]


def test_names_break_at_dots_alone_and_numbers_above_a_thousand_are_written_out(tmp_path):
    rng = np.random.default_rng(0)
    prior = Prior({"observe.global.tau": dist.LogUniform(2e3, 2e4)})
    posterior = Posterior({"observe.global.tau": 5930.0 + 400.0 * rng.normal(size=(1, 500))}, prior=prior)
    out = tmp_path / "r.html"
    verdict = report(posterior, out=out)
    text = out.read_text(encoding="utf-8")
    assert "<dt>observe.<wbr>global.<wbr>tau</dt>" in text
    assert re.search(r'class="big">5,9\d0 ± [34]\d0<', text)
    assert "e+03" not in text + verdict.numbers["answer"]


@pytest.mark.parametrize(("period", "unit"), [(1.0, "ms"), (100.0, "s"), (5000.0, "min")])
def test_time_is_in_the_unit_of_the_recording(good, period, unit):
    values = np.random.default_rng(0).normal(size=(40, 3))
    observed = types.SimpleNamespace(values=values, period=period, labels=("a", "b", "c"))
    (figure, *_) = data(Evidence(good["posterior"], observed=observed), []).blocks
    signals = figure.panels[0]
    assert signals.x.unit == unit
    assert signals.y.ticks == ["a", "b", "c"]
    assert len(signals.marks) == 3
    assert signals.marks[0].x[-1] == pytest.approx(39 * period / {"ms": 1.0, "s": 1e3, "min": 60e3}[unit])
    assert "and the correlations between them" in figure.caption


def test_regions_stand_at_their_centres_or_on_a_ring_with_the_left_on_the_left():
    labels = ("a_L", "a_R", "b_L", "b_R", "c_L", "c_R")
    ring = views(6, labels, None)["on a ring"]
    np.testing.assert_allclose(np.hypot(*ring.T), 1.0)
    assert (ring[0::2, 0] < 0).all()
    assert (ring[1::2, 0] > 0).all()
    np.testing.assert_allclose(ring[0::2] * [-1, 1], ring[1::2], atol=1e-12)  # mirrored regions face each other
    centres = np.arange(18.0).reshape(6, 3) ** 2
    assert views(6, labels, centres)["from above"][4].tolist() == [12.0**2, 13.0**2]
    assert views(6, labels, centres)["from the right"][4].tolist() == [13.0**2, 14.0**2]


def test_the_strongest_connections_are_drawn_and_the_strongest_on_top():
    rng = np.random.default_rng(0)
    half = np.triu(rng.normal(size=(30, 30)), 1)
    figure = connections({"FC": half + half.T + np.eye(30)}, None, rng.normal(size=(30, 3)))
    graph = next(mark for mark in figure.panels[0].marks if isinstance(mark, Graph))
    strongest = np.sort(np.abs(half[np.triu_indices(30, 1)]))[-MOST_EDGES:]
    np.testing.assert_allclose(np.abs(graph.weights), strongest)
    np.testing.assert_allclose(graph.weights, half[tuple(graph.edges.T)])
    np.testing.assert_allclose(graph.values, (half + half.T).sum(1) / 29)


def test_the_verdict_is_the_worst_light():
    assert worst(["pass", "warn", "pass"]) == "warn"
    assert worst(["warn", "fail", "pass"]) == "fail"
    assert worst(["pass"]) == "pass"
    assert worst([]) == "pass"  # of a page on which nothing was checked the verdict is warn, see below


def test_shrinkage_and_percentiles_are_the_closed_forms(good, prior):
    parameters = Parameters.of(Evidence(posterior=good["posterior"], prior=prior))
    variance = good["posterior"].theta["coupling.G"].astype(float).var(ddof=1)
    assert parameters.shrinkage is not None
    expected = 1.0 - variance / (0.5**2 / 12.0)
    assert parameters.shrinkage[0] == pytest.approx(expected, rel=1e-5)  # float32 prior variance
    sample = np.array([1.0, 2.0, 2.0, 5.0])
    assert [percentile(v, sample) for v in (0.0, 1.0, 2.0, 4.0, 9.0)] == [0.0, 12.5, 50.0, 75.0, 100.0]
    assert percentile(1.0, None) is None


def test_fcd_of_a_signal_that_switches_has_two_blocks():
    """Two orthogonal connectivity patterns: windows within a half agree, windows across do not."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 4000))
    noise = 0.05 * rng.normal(size=(4, 4000))
    y = np.where(np.arange(4000) < 2000, [a, a, b, b], [a, b, a, b]) + noise + 3.0
    matrix = np.asarray(fcd_matrix(y.T, window=500.0, step=500.0, period=1.0))
    assert matrix.shape == (8, 8)
    assert matrix[:4, :4].min() > 0.95
    assert matrix[:4, 4:].max() < 0.0
    assert fc_matrix(np.c_[a, np.ones(4000)])[0, 1] == 0.0


@pytest.fixture(scope="module")
def page(good, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new folder" / "report.html"
    verdict = report(**good, out=out)
    return verdict, out.read_text(encoding="utf-8"), json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))


def embedded(text):
    (content,) = re.findall(r'<script type="application/json" id="verdict">(.*?)</script>', text, re.S)
    return json.loads(content)


@pytest.mark.smoke
def test_page_and_file_hold_the_same_json(page):
    verdict, text, saved = page
    assert saved == embedded(text) == json.loads(verdict.to_json())
    assert saved["verdict"] == verdict.verdict == "pass"
    assert len(saved["findings"]) == len(saved["checks"]) == 6
    fc_match = saved["numbers"]["fc_correlation"]
    assert fc_match["posterior predictive"] > 0.9 > abs(fc_match["structural connectivity"])


def test_page_is_self_contained_and_small(page):
    _, text, _ = page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.search(r"@import|url\(", text)
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/json" id="verdict">']
    assert len(text) < 5e6


def test_every_light_links_to_a_section_and_every_picture_has_words(page):
    verdict, text, _ = page
    anchors = set(re.findall(r'<section id="([^"]+)"', text))
    assert {check["evidence"].lstrip("#") for check in verdict.checks} <= anchors
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', text)
    assert len(alts) == text.count("<img ") >= 15
    assert min(map(len, alts)) > 10
    assert text.index("Verdict: pass") < text.index("<section")


SECTIONS = {
    "data": ("draws", "observed"),
    "posterior": ("posterior",),
    "limits": ("posterior",),
    "training": ("fit",),
    "recovery": ("extras",),
    "predictive": ("predictive", "extras"),
    "failures": ("draws",),
    "replicates": ("extras",),
    "provenance": ("posterior",),
}


@pytest.mark.parametrize("given", ["draws", "fit", "predictive", "observed", "extras", None])
def test_sections_are_there_when_their_inputs_are(good, given, tmp_path, monkeypatch):
    # pictures, drawn elsewhere, take nine tenths of a page's time
    monkeypatch.setattr(
        "vbinfer.reporting.page.images", lambda figure: [Image("data:,", one.alt) for one in figure.panels]
    )
    inputs = {"posterior": good["posterior"]} | ({given: good[given]} if given else {})
    report(**inputs, out=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    found = set(re.findall(r'<section id="([^"]+)"', text))
    expected = {name for name, sources in SECTIONS.items() if set(sources) & set(inputs)}
    if given == "extras":  # its FC needs a recording to compare with; its simulations show the prior predictive
        expected = expected - {"predictive"} | {"data"}
    assert found == expected
    assert "Not asked, for want of input" in text


def test_a_report_on_bare_draws_says_that_nothing_was_checked(tmp_path):
    verdict = report(Posterior({"a": np.linspace(0.0, 1.0, 50)[None]}), out=tmp_path / "r.html")
    assert verdict.verdict == "warn"
    assert "Nothing could be checked" in verdict.findings[0]


def test_text_from_files_is_escaped_everywhere(good, tmp_path):
    bad = "</script><script>alert('x')</script><img src=x onerror=alert(1)> $\\frac{"
    draws = dataclasses.replace(good["draws"], names=(bad, "b & c", "d"), info={bad: bad})
    observed = types.SimpleNamespace(values=good["observed"].values, period=720.0, labels=(bad,) * 6)
    extras = dataclasses.replace(
        good["extras"],
        title=bad,
        notes={bad: [bad]},
        replicates={bad: good["posterior"]},
        sections=[Section(bad, text=bad, table=[[bad, "n"], [bad, "1"]])],
        units={"coupling.G": bad},
    )
    report(**good | {"draws": draws, "observed": observed, "extras": extras}, out=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<script", text)) == 1
    assert "<img src=x" not in text
    assert html.escape(bad, quote=False)[:20] in text
    assert embedded(text)["numbers"]["features"][0]["name"] == bad


def test_own_section_and_truth_are_shown(good, tmp_path):
    section = Section("Step size", text="first\n\nsecond", table=[["dt", "r"], ["0.5", "0.99"]])
    extras = ReportExtras(sections=[section])
    verdict = report(good["posterior"], theta_true=TRUTH, extras=extras, out=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<p>first</p>" in text
    assert "<p>second</p>" in text
    assert "Step size" in text
    row = json.loads(verdict.to_json())["numbers"]["parameters"][0]
    assert row["z"] == pytest.approx((row["mean"] - TRUTH["coupling.G"]) / row["sd"])
    assert abs(row["z"]) < 4.0


def test_the_same_inputs_give_the_same_page(good, tmp_path):
    pages = []
    for name in ("a.html", "b.html"):
        report(good["posterior"], fit=good["fit"], draws=good["draws"], out=tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


MISTAKES = {
    "not html": (lambda g: {"out": "report.json"}, "ending in .html"),
    "unknown truth": (lambda g: {"theta_true": {"coupling.g": 0.1, "model.w": 0.5}}, "Did you mean 'coupling.G'"),
    "missing truth": (lambda g: {"theta_true": {"coupling.G": 0.1}}, "lacks ['model.w']"),
    "other features": (
        lambda g: {"draws": Draws.from_arrays(g["draws"].theta, g["draws"].x[:, :2])},
        "one and the same",
    ),
    "other channels": (
        lambda g: {
            "predictive": g["predictive"],
            "observed": types.SimpleNamespace(values=np.ones((9, 5)), period=1.0, labels=None),
        },
        "observed has 5 channels but predictive.ys has 6 nodes",
    ),
    "not [T, N]": (
        lambda g: {"observed": types.SimpleNamespace(values=np.ones(9), period=1.0, labels=None)},
        "[time, node]",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_their_remedy(good, name, tmp_path):
    make, words = MISTAKES[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        report(good["posterior"], **({"out": tmp_path / "r.html"} | make(good)))
    assert not list(tmp_path.iterdir())


def test_mistakes_in_the_parts_name_their_remedy():
    with pytest.raises(ValueError, match="the same parameters"):
        Recovery({"a": np.zeros(3)}, {"b": np.zeros((3, 9))})
    with pytest.raises(ValueError, match=re.escape("[n, ...] and [n, draw, ...]")):
        Recovery({"a": np.zeros(3)}, {"a": np.zeros((4, 9))})
    with pytest.raises(ValueError, match="equal lengths"):
        Section("t", table=[["a", "b"], ["1"]])
    figure = Figure()
    with pytest.raises(ValueError, match="alt="):
        Section("t", figure=figure)
