"""The report as a browser sees it: no console errors, nothing wider than a phone, every link lands. Needs Chromium."""

import dataclasses
import json
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest

from vbinfer.diagnostics.calibration.study import calibrate
from vbinfer.draws.draws import Draws
from vbinfer.posterior import Posterior
from vbinfer.reporting import report

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]

# Written to the title, where --dump-dom shows it. The frame is as wide as a phone.
PROBE = """<!doctype html><title>waiting</title>
<iframe id="f" src="report.html" style="width:390px;height:3000px"></iframe>
<script>
document.getElementById("f").onload = function () {
  const d = this.contentDocument;
  const images = [...d.images];
  const links = [...d.querySelectorAll('a[href^="#"]')];
  document.title = JSON.stringify({
    width: d.documentElement.scrollWidth, images: images.length,
    broken: images.filter(i => !i.complete || i.naturalWidth === 0).length,
    unseen: images.filter(i => i.getBoundingClientRect().width < 100 || i.getBoundingClientRect().height < 50).length,
    silent: images.filter(i => i.alt.length < 10).length,
    past: [...d.querySelectorAll("p, li, h1, h2, figcaption, img")].filter(e => e.getBoundingClientRect().right > 391
      && !e.closest(".panel")).length,
    dead: links.filter(a => !d.getElementById(a.getAttribute("href").slice(1))).length, links: links.length,
    verdict: JSON.parse(d.getElementById("verdict").textContent).verdict, lang: d.documentElement.lang,
    levels: [...d.querySelectorAll("h1, h2, h3")].map(h => h.tagName).join(" ") });
};
</script>"""


@dataclasses.dataclass(frozen=True)
class Noted:
    """A further check with a long name that does not break."""

    verdict: str = "warn"
    findings: tuple[str, ...] = ("a_name_without_any_place_to_break_it_" * 6, "Second.")


def _study():
    """A calibration of the exact posterior of theta ~ N(0, 1) with x = theta + noise, for two parameters."""
    rng = np.random.default_rng(2)
    names = ("coupling.G", "model.a_rather_long_parameter_name")
    truth = rng.normal(size=(120, 2))
    x = truth + 0.5 * rng.normal(size=(120, 2))

    def source(x_o, n, key):
        noise = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist()).normal(size=(1, n, 2))
        draws = np.asarray(x_o) * 0.8 + np.sqrt(0.2) * noise
        return Posterior({name: draws[:, :, i] for i, name in enumerate(names)})

    draws = Draws.from_arrays({name: truth[:, i] for i, name in enumerate(names)}, x)
    return calibrate(source, draws, key=jax.random.key(0), num_posterior_samples=60)


def chromium(*args: str, folder) -> subprocess.CompletedProcess:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               f"--user-data-dir={folder / 'profile'}", *args]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    theta = {"coupling.G": rng.uniform(0.0, 0.5, 400), "model.a_rather_long_parameter_name": rng.normal(0.6, 0.1, 400)}
    x = np.stack([*theta.values(), theta["coupling.G"] ** 2], axis=1) + 0.02 * rng.normal(size=(400, 3))
    x[:9] = np.nan
    draws = Draws.from_arrays(theta, x, ("fc.mean", "a feature with quite a long name, " * 3, "fcd.var"))
    centre = {"coupling.G": 0.3, "model.a_rather_long_parameter_name": 0.6}
    samples = {name: value + 0.02 * rng.normal(size=(1, 500)) for name, value in centre.items()}
    out = tmp_path_factory.mktemp("page")
    report(
        Posterior(samples, x_o=np.array([0.3, 0.6, 0.09])),
        draws=draws,
        calibration=_study(),
        theta_true=centre,
        checks=[Noted()],
        out=out / "report.html",
    )
    (out / "probe.html").write_text(PROBE, encoding="utf-8")
    return out


def test_the_page_holds_on_a_phone(folder):
    seen = chromium("--virtual-time-budget=8000", "--dump-dom", f"file://{folder}/probe.html", folder=folder)
    title = re.search(r"<title>(.*?)</title>", seen.stdout, re.S)
    assert title, seen.stderr[-2000:]
    found = json.loads(title.group(1).replace("&amp;", "&"))
    assert found["width"] <= 390
    assert found["images"] >= 11
    assert found["broken"] == found["unseen"] == found["silent"] == found["past"] == 0
    assert found["links"] > found["dead"] == 0
    assert found["verdict"] in ("pass", "warn")
    assert found["lang"] == "en"
    assert found["levels"].startswith("H1 H2")


def test_the_console_stays_empty(folder):
    seen = chromium("--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--dump-dom",
                    f"file://{folder}/report.html", folder=folder)  # fmt: skip
    assert "Verdict:" in seen.stdout
    assert not re.findall(r".*CONSOLE.*", seen.stderr)


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_the_background_follows_the_reader(folder, scheme):
    from PIL import Image

    name = folder / f"{scheme}.png"
    chromium(f"--screenshot={name}", "--window-size=1280,900", f"--blink-settings=preferredColorScheme={scheme}",
             f"file://{folder}/report.html", folder=folder)  # fmt: skip
    corner = np.asarray(Image.open(name).convert("L"))[5, 5]
    assert (corner < 60) == (scheme == 0)


CONTRAST = """<!doctype html><title>waiting</title><iframe id="f" src="report.html" style="width:1200px;height:3000px">
</iframe><script>
function light(text) {
  const c = text.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4));
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
}
document.getElementById("f").onload = function () {
  const w = this.contentWindow, d = this.contentDocument;
  const worst = [...d.querySelectorAll("p, h1, h2, a, td, th, figcaption, dt, dd, span, div.word")].map(e => {
    if (!e.textContent.trim()) return 21;
    let up = e;
    const clear = x => /rgba\\(.*, 0\\)|transparent/.test(w.getComputedStyle(x).backgroundColor);
    while (up.parentElement && clear(up)) up = up.parentElement;
    const a = light(w.getComputedStyle(e).color), b = light(w.getComputedStyle(up).backgroundColor);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
  document.title = "contrast " + Math.min(...worst).toFixed(2) + " of " + worst.length;
};
</script>"""


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_all_text_can_be_read(folder, scheme):
    """Contrast of every text with what lies behind it: 4.5 and more, as WCAG 2 asks at level AA."""
    (folder / "contrast.html").write_text(CONTRAST, encoding="utf-8")
    seen = chromium("--virtual-time-budget=8000", "--dump-dom", f"--blink-settings=preferredColorScheme={scheme}",
                    f"file://{folder}/contrast.html", folder=folder)  # fmt: skip
    found = re.search(r"<title>contrast ([0-9.]+) of ([0-9]+)</title>", seen.stdout)
    assert found, seen.stdout[:300]
    assert int(found.group(2)) > 80
    assert float(found.group(1)) >= 4.5


def test_it_prints(folder):
    chromium(
        f"--print-to-pdf={folder / 'r.pdf'}", "--no-pdf-header-footer", f"file://{folder}/report.html", folder=folder
    )
    pdf = (folder / "r.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12
