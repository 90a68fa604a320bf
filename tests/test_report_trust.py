"""Calibration, further checks, known truths and bad input in a report."""

import dataclasses
import json
import re

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from tests.calibration_sources import FEATURES, NAMES, Exact, make_draws
from vbinfer.diagnostics.chains import Convergence
from vbinfer.diagnostics.local import LC2ST
from vbinfer.diagnostics.local_sbc import PosteriorSbc
from vbinfer.diagnostics.recovery import REGIONS, region_of
from vbinfer.draws.draws import Draws
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.reporting import page, report
from vbinfer.reporting.features import power, series_p
from vbinfer.reporting.format import paragraph
from vbinfer.reporting.parameters import truth_p
from vbinfer.reporting.questions import by_name
from vbinfer.reporting.sections import Image

undrawn = pytest.mark.usefixtures("no_pictures")
"""Of tests of sentences and numbers: pictures take nine tenths of a page's time."""


def blank(figure):
    return [Image("data:,", panel.alt) for panel in figure.panels]


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(page, "images", blank)


@dataclasses.dataclass(frozen=True)
class Result:
    """The least that a diagnostic is."""

    verdict: str = "pass"
    findings: tuple[str, ...] = ("nothing was found",)


@pytest.fixture(scope="module")
def studies():
    """A study of the exact posterior, and one of a posterior a third too narrow."""
    draws = make_draws(200, 11)
    return {
        scale: vb.calibrate(Exact(scale=scale), draws, key=jax.random.key(4), num_posterior_samples=99)
        for scale in (1.0, 0.65)
    }


@pytest.fixture(scope="module")
def posterior():
    draws = make_draws(1, 12)
    return Exact().sample(draws.x[0], n=400, key=jax.random.key(5))


def written(path):
    return path.read_text(encoding="utf-8"), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def asked_of(verdict, start):
    (check,) = [check for check in verdict.checks if check["question"].startswith(start)]
    return check


def test_a_right_estimator_is_calibrated_and_a_narrow_one_is_not(studies, posterior, tmp_path, monkeypatch):
    wrong = report(posterior, calibration=studies[0.65], out=tmp_path / "wrong.html")
    monkeypatch.setattr(page, "images", blank)
    right = report(posterior, calibration=studies[1.0], out=tmp_path / "right.html")
    assert asked_of(right, "Is the estimator calibrated")["light"] == "pass"
    assert asked_of(wrong, "Is the estimator calibrated")["light"] == wrong.verdict == "fail"
    assert "too narrow" in asked_of(wrong, "Is the estimator calibrated")["sentence"]
    text, saved = written(tmp_path / "wrong.html")
    assert '<section id="calibration"' in text
    assert saved["numbers"]["calibration"]["verdict"] == "fail"
    tests = {(row["quantity"], row["parameter"]): row for row in saved["numbers"]["calibration"]["tests"]}
    # a posterior sd of 0.65 of the right one: z has sd 1 / 0.65 on average
    assert tests["width", "coupling.G"]["statistic"] == pytest.approx(1 / 0.65, rel=0.15)
    for name in (*REGIONS, "TARP", "coverage", *NAMES):
        assert name in text


@pytest.mark.slow
@undrawn
def test_figures_say_whether_ranks_leave_the_band(studies, posterior, tmp_path):
    for scale, inside in ((1.0, True), (0.65, False)):
        report(posterior, calibration=studies[scale], out=tmp_path / "r.html")
        alts = re.findall(r'alt="Ranks of ([^"]*)"', written(tmp_path / "r.html")[0])
        assert len(alts) == 5
        left = sum("leaves the" in alt for alt in alts)
        assert (left == 0) == inside, alts


@undrawn
def test_a_calibration_of_another_study_is_refused(studies, tmp_path):
    with pytest.raises(ValueError, match=r"calibration is of coupling\.G.* but the posterior is of a;.*same study"):
        report(Posterior({"a": np.linspace(0.0, 1.0, 50)[None]}), calibration=studies[1.0], out=tmp_path / "r.html")


@undrawn
def test_further_checks_are_asked_and_the_worst_rules(posterior, tmp_path):
    given = {"mean field": Result(), "budget & <b>": Result("warn", ("more draws would help", "The curve falls."))}
    verdict = report(posterior, checks=given, out=tmp_path / "r.html")
    assert verdict.verdict == "warn"
    check = asked_of(verdict, "budget")
    assert check["sentence"] == "More draws would help. The curve falls."
    text, saved = written(tmp_path / "r.html")
    assert check["evidence"].lstrip("#") in re.findall(r'<section id="([^"]+)"', text)
    assert "<b>" not in text
    assert saved["numbers"]["mean field"]["findings"] == ["nothing was found"]


def test_a_local_test_comes_with_its_section(posterior, tmp_path):
    null = np.random.default_rng(0).gamma(2.0, 0.01, 99)
    found = LC2ST("fail", ("At this observation the posterior is wrong.",), 0.01, 0.01, 0.01, 0.11, null, 0.2,
                  np.full(50, 0.5), np.zeros(5), posterior.names)  # fmt: skip
    verdict = report(posterior, checks=[found], out=tmp_path / "r.html")
    check = asked_of(verdict, "Is the posterior right at this recording")
    assert check["light"] == verdict.verdict == "fail"
    text, saved = written(tmp_path / "r.html")
    assert '<section id="local"' in text
    assert "Statistic of the local test among 99 relabellings: p = 0.01" in text
    assert saved["numbers"]["LC2ST"]["p_classifier"] == 0.01


@undrawn
def test_calibration_around_the_recording_comes_with_its_section(studies, posterior, tmp_path):
    study = studies[0.65]
    found = PosteriorSbc(study.names, study.ranks, study.u, 99, study.tests, "importance", np.full(200, 0.3), 3, 2,
                         "fail", ("around this observation the posterior is wrong: 195 replicates",))  # fmt: skip
    verdict = report(posterior, checks=[found], out=tmp_path / "r.html")
    check = asked_of(verdict, "Is the method right for data like this recording")
    assert check["light"] == verdict.verdict == "fail"
    assert check["evidence"] == "#posterior-sbc"
    text, saved = written(tmp_path / "r.html")
    assert '<section id="posterior-sbc"' in text
    assert len(re.findall(r'alt="Ranks of [^"]*leaves the 95 % band', text.replace("\N{NO-BREAK SPACE}", " "))) == 5
    assert saved["numbers"]["PosteriorSbc"]["median_pareto_k"] == pytest.approx(0.3)
    assert saved["numbers"]["PosteriorSbc"]["n"] == 200


@pytest.mark.slow
def test_agreement_of_methods_comes_with_its_table(posterior, tmp_path):
    draws = make_draws(1, 12)
    other = Exact(shift=1.5).sample(draws.x[0], n=400, key=jax.random.key(6))
    found = vb.diagnostics.compare_posteriors({"NPE": posterior, "NUTS": other}, key=jax.random.key(0))
    verdict = report(posterior, checks=[found], out=tmp_path / "r.html")
    check = asked_of(verdict, "Do methods agree")
    assert check["light"] == verdict.verdict == "fail"
    assert "NPE and NUTS disagree" in check["sentence"]
    text, saved = written(tmp_path / "r.html")
    assert '<section id="agreement"' in text
    assert "NPE, NUTS" in text
    shifts = saved["numbers"]["Agreement"]["pairs"][0]["mean_difference"]
    np.testing.assert_allclose(shifts, -1.5, atol=4 * np.sqrt(2 / 400))


@pytest.mark.slow
@undrawn
def test_several_modes_are_said_at_the_top_and_beside_the_figures(tmp_path):
    rng = np.random.default_rng(7)
    g = np.where(rng.random((4, 200)) < 0.25, 0.2, 0.8) + 0.03 * rng.normal(size=(4, 200))
    prior = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Normal(0.0, 1.0)})
    posterior = Posterior({"g": g, "h": 0.3 * rng.normal(size=(4, 200))}, prior=prior)
    check = asked_of(report(posterior, out=tmp_path / "r.html"), "What was learned")
    words = re.search(r"several modes in g, around (0\.\d+) and (0\.\d+) \((\d+) % and (\d+) %", check["sentence"])
    assert words is not None
    big, small, most, least = map(float, words.groups())
    assert (big, small) == (pytest.approx(0.8, abs=0.01), pytest.approx(0.2, abs=0.01))
    assert most + least == 100
    assert least == pytest.approx(100 * np.mean(g < 0.5), abs=1.0)
    assert "R-hat" in check["sentence"]
    text, saved = written(tmp_path / "r.html")
    assert (
        len(re.findall("The posterior has several modes in g", re.sub("<script.*?</script>", "", text, flags=re.S)))
        == 2
    )
    assert saved["numbers"]["modes"]["where"] == "g"
    one = Posterior({name: value[:, :100] * 0.1 + 0.45 for name, value in {"g": rng.normal(size=(4, 200))}.items()})
    assert "modes" not in report(one, out=tmp_path / "one.html").numbers


@undrawn
def test_a_given_result_takes_the_place_of_the_one_computed(posterior, tmp_path):
    draws = make_draws(400, 2)
    computed = report(posterior, draws=draws, out=tmp_path / "a.html")
    found = vb.diagnostics.misspecification(
        np.where(np.arange(10) == 3, 90.0, posterior.x_o), draws, key=jax.random.key(0)
    )
    replaced = report(posterior, draws=draws, checks={"mine": found}, out=tmp_path / "b.html")
    start = "Is the recording inside"
    assert asked_of(computed, start)["light"] == "pass"
    assert asked_of(replaced, start)["light"] == "fail"
    assert FEATURES[3] in asked_of(replaced, start)["sentence"]
    assert len(replaced.checks) == len(computed.checks)


@undrawn
def test_an_odd_combination_of_features_is_seen(tmp_path):
    """Two features that are equal in every simulation and differ by five noise sds in the recording, each ordinary."""
    rng = np.random.default_rng(1)
    g = rng.normal(size=600)
    draws = Draws.from_arrays({"g": g}, np.stack([g, g], axis=1) + 0.05 * rng.normal(size=(600, 2)), ("fc", "fcd"))
    posterior = Posterior({"g": rng.normal(size=(1, 300))}, x_o=np.array([0.4, -0.4]))
    check = asked_of(report(posterior, draws=draws, out=tmp_path / "r.html"), "Is the recording inside")
    assert check["light"] == "fail"
    assert "No feature is off by itself" in check["sentence"]


def test_the_eye_names_four_regions():
    shrinkage, z = np.array([0.9, 0.9, 0.1, 0.1]), np.array([0.5, -4.0, 1.0, 3.0])
    assert [REGIONS[k] for k in region_of(shrinkage, z)] == list(REGIONS)


def test_spectra_share_out_the_variance():
    """A sine of 8 cycles puts all variance into one bin, whatever its level, scale and channel."""
    t = np.arange(128)
    y = np.stack([5.0 + 3.0 * np.sin(2 * np.pi * 8 * t / 128), -2.0 + 0.1 * np.cos(2 * np.pi * 8 * t / 128)], axis=1)
    shares = power(y[None])[0]
    assert shares[7] == pytest.approx(1.0, abs=1e-12)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)


def test_series_are_compared_without_their_unit_and_level():
    """Slow replicates: a recording of the same process in another unit is alike, white noise is not."""
    rng = np.random.default_rng(0)

    def process(n, a):
        e = rng.normal(size=(n, 260, 3))
        for t in range(1, 260):
            e[:, t] += a * e[:, t - 1]
        return e[:, 60:]

    replicates = process(60, 0.9)
    same, white = 4000.0 + 17.0 * process(1, 0.9)[0], process(1, 0.0)[0]
    p_same, p_white = (series_p(replicates, vb.Recording(y, 1.0)) for y in (same, white))
    assert min(p_same.values()) > 0.05
    assert p_white["lag-1 autocorrelation"] < 0.05
    assert "mean" not in p_same


PRIOR = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Normal(0.0, 1.0)})


def around(g=0.5, h=0.0, n=400, chains=1):
    rng = np.random.default_rng(6)
    return Posterior({"g": g + 0.03 * rng.normal(size=(chains, n)), "h": h + 0.1 * rng.normal(size=(chains, n))},
                     prior=PRIOR)  # fmt: skip


@undrawn
def test_a_truth_outside_the_prior_is_said(tmp_path):
    verdict = report(around(), theta_true={"g": 1.5, "h": 0.0}, out=tmp_path / "r.html")
    check = asked_of(verdict, "Does the posterior hold")
    assert check["light"] == "fail"
    assert "true value of g lies outside the prior" in check["sentence"]
    assert "widen the prior" in check["sentence"]


@pytest.mark.parametrize(("h", "expected"), [(0.05, "pass"), (0.31, "warn"), (2.0, "fail")])
@undrawn
def test_a_truth_far_from_the_posterior_is_seen(tmp_path, h, expected):
    posterior = around(n=8000)
    verdict = report(posterior, theta_true={"g": 0.5, "h": h}, out=tmp_path / "r.html")
    assert asked_of(verdict, "Does the posterior hold")["light"] == expected


def test_a_right_posterior_holds_the_truth_as_often_as_it_says():
    """Rank p-values over 2,000 truths that are exchangeable with the draws: at most 5 % below 0.05."""

    rng = np.random.default_rng(3)
    p = []
    for _ in range(500):
        rows = np.exp(rng.normal(size=(100, 4)))
        p += truth_p(rows[:-1], rows[-1]).tolist()
    share = np.mean(np.asarray(p) < 0.05)
    assert 0.02 < share < 0.065  # 0.04 for 99 draws: ranks 0, 1, 98, 99


def test_a_constant_parameter_is_a_sentence_and_no_picture_of_nan(tmp_path):
    theta = dict(around().theta) | {"g": np.full((1, 400), 0.5)}
    posterior = Posterior(theta, prior=PRIOR)
    verdict = report(posterior, theta_true={"g": 0.5, "h": 0.0}, out=tmp_path / "r.html")
    assert "g: all posterior draws are the same" in asked_of(verdict, "What was learned")["sentence"]
    text, saved = written(tmp_path / "r.html")
    assert not re.search(r"\bnan\b|not a number", re.sub(r'src="[^"]*"', "", text), re.I)
    assert saved["numbers"]["parameters"][0]["z"] is None


def test_a_prior_without_variance_gives_no_shrinkage(tmp_path):
    heavy = Prior({"g": dist.Cauchy(0.0, 1.0), "h": dist.Normal(0.0, 1.0)})
    posterior = dataclasses.replace(around(), prior=heavy)
    verdict = report(posterior, out=tmp_path / "r.html")
    check = asked_of(verdict, "What was learned")
    assert "g: the prior has no finite variance" in check["sentence"]
    assert check["light"] == "warn"
    assert not re.search(r"\bnan\b|not a number", re.sub(r'src="[^"]*"', "", written(tmp_path / "r.html")[0]), re.I)


def test_chains_of_one_draw_cannot_be_judged(tmp_path):
    verdict = report(around(n=1, chains=4), out=tmp_path / "r.html")
    check = asked_of(verdict, "Did the chains mix")
    assert check["light"] == "fail"
    assert "chains have 1 draws; expected at least 4" in check["sentence"]


def test_all_draws_failed_is_said(tmp_path):
    rng = np.random.default_rng(0)
    draws = Draws.from_arrays({"g": rng.uniform(size=200), "h": rng.normal(size=200)}, np.full((200, 3), np.nan))
    posterior = dataclasses.replace(around(), x_o=np.array([0.1, 0.2, 0.3]))
    verdict = report(posterior, draws=draws, out=tmp_path / "r.html")
    assert "No simulation worked" in asked_of(verdict, "Is the recording inside")["sentence"]
    assert asked_of(verdict, "Did simulations fail")["light"] == verdict.verdict == "fail"


MISTAKES = {
    "one draw": (lambda: {"posterior": around(n=1)}, ValueError, r"has 1 draw; a report needs at least 2"),
    "nan": (
        lambda: {"posterior": Posterior({"a": np.array([[1.0, np.nan, 2.0]])})},
        ValueError,
        r"a is NaN .* in 1 of 3",
    ),
    "one check": (lambda: {"checks": Result()}, TypeError, r"write checks=\[result\]"),
    "no check": (lambda: {"checks": [3]}, TypeError, r"checks holds a int; expected results of vb\.diagnostics\.lc2st"),
    "other light": (lambda: {"checks": [Result("green")]}, ValueError, r"verdict 'green'; expected one of"),
}


@pytest.mark.parametrize("name", MISTAKES)
@undrawn
def test_mistakes_name_their_remedy(name, tmp_path):
    make, error, words = MISTAKES[name]
    with pytest.raises(error, match=words):
        report(**({"posterior": around(), "out": tmp_path / "r.html"} | make()))
    assert not list(tmp_path.iterdir())


def test_results_of_a_sequence_are_named_after_their_type():
    assert list(by_name([Result(), Result(), Result()])) == ["Result", "Result 2", "Result 3"]
    assert paragraph(["coupling.G lies too low", "joint regions are overconfident"]) == (
        "coupling.G lies too low. Joint regions are overconfident."
    )


def test_health_of_chains_has_its_section(tmp_path):
    report(around(chains=4), out=tmp_path / "r.html")
    text, saved = written(tmp_path / "r.html")
    assert '<section id="chains"' in text
    assert saved["numbers"]["convergence"]["rhat"]["g"] == pytest.approx(1.0, abs=0.02)
    assert text.count("Rank histograms of") == 2
    assert isinstance(vb.diagnostics.convergence(around(chains=4)), Convergence)
