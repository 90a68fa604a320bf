"""Files of a run, and what each holds.

The report is made again from them alone.

| file | holds |
|---|---|
| `run.json` | how many draws were asked for; `vbinfer status` reads it |
| `study.json` | the study file as it was, and the machine; `vbinfer verify` reads it |
| `store/` | simulations that the estimator is trained on |
| `training.npz` | checkpoint of the fit, from which an interrupted one goes on |
| `estimator.npz` | the fitted estimator |
| `chains/` | chains of a sampler, from which an interrupted run goes on |
| `posterior.npz` | the posterior |
| `calibration/`, `calibration.npz` | held-out simulations, their posteriors, and what they say |
| `evidence.npz` | what else the report shows |
"""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vbinfer.datasets import Recording
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.reporting.evidence import Recovery, ReportExtras
from vbinfer.reporting.page import report
from vbinfer.reporting.sections import Section, Verdict

from . import subjects

if TYPE_CHECKING:
    from vbinfer.diagnostics.calibration.result import Calibration

    from .study import Study

PLAN, STORE, TRAINING, ESTIMATOR, CHAINS = "run.json", "store", "training.npz", "estimator.npz", "chains"
POSTERIOR, CALIBRATION, EVIDENCE, REPORT = "posterior.npz", "calibration.npz", "evidence.npz", "report.html"
ORIGIN = "study.json"
_KIND = "evidence"


@dataclasses.dataclass(frozen=True)
class ReportInputs:
    """Inputs of a report beside posterior, draws and calibration.

    Attributes:
        others: posteriors of the same recording by other methods, by name; the report compares them.
        trained: what identifies the fit in `estimator.npz`; a study that has it does not train again.
        of_series: whether the features are the series itself, which FC, spectra and statistics of the series look at.
    """

    fit: FitInfo | None = None
    predictive: Predictive | None = None
    recording: Recording | None = None
    theta_true: Mapping[str, Any] | None = None
    others: Mapping[str, Posterior] = dataclasses.field(default_factory=dict)
    extras: ReportExtras = dataclasses.field(default_factory=ReportExtras)
    trained: str | None = None
    of_series: bool = False


_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (ReportInputs, FitInfo, Predictive, Recording, ReportExtras, Recovery, Section, Posterior)
}
_KEPT = {"Posterior": ("theta",), "Section": ("title", "text", "table")}
"""Fields that are written, of classes of which not all are."""


def write_plan(out: Path, **numbers: int | None) -> None:
    """Record the numbers asked for; None leaves one alone."""
    asked = {**read_plan(out), **{name: value for name, value in numbers.items() if value is not None}}
    npz.write_text(out / PLAN, npz.to_json(asked) + "\n")


def machine() -> dict[str, str]:
    """Versions and processor, which decide the last digits."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return npz.versions() | {"machine": platform.machine(), "system": platform.system(), "cpu": cpu}


def write_origin(study: "Study") -> None:
    """Keep a run's study file, and where it runs."""
    if study.source:
        kept = {
            **study.source,
            "path": os.path.relpath(study.path.resolve(), study.out.resolve()),
            "draws": study.draws,
            "held_out": study.calibration.draws,
            "machine": machine(),
        }
        npz.write_text(study.out / ORIGIN, npz.to_json(kept) + "\n")


def read_plan(out: Path) -> dict[str, int]:
    """The numbers asked for, where they can be read."""
    try:
        found = json.loads((out / PLAN).read_text(encoding="utf-8"))
        return {str(name): value for name, value in found.items() if isinstance(value, int)}
    except (OSError, ValueError, AttributeError):  # they only complete a sentence
        return {}


def write_report(
    page: Path, posterior: Posterior, draws: Draws | None, inputs: ReportInputs, calibration: "Calibration | None"
) -> Verdict:
    """The page and the JSON of a run."""
    checks = []
    if inputs.others:
        from vbinfer.diagnostics.agreement import compare_posteriors  # here, since few runs compare methods

        known = {str(posterior.info.get("method", "this posterior")): posterior, **inputs.others}
        checks.append(compare_posteriors(known, key=jax.random.key(0)))
    return report(
        dataclasses.replace(posterior, x_o=None) if inputs.of_series else posterior,
        draws=draws,
        fit=inputs.fit,
        calibration=calibration,
        checks=checks,
        predictive=inputs.predictive,
        observed=inputs.recording,
        theta_true=inputs.theta_true,
        extras=inputs.extras,
        out=page,
    )


def rebuild(folder: str | Path) -> Verdict:
    """The report of a run, again, from its folder.

    Raises:
        FileNotFoundError: no such folder, or no posterior in it.
        ValueError: a damaged file.
    """
    out = Path(folder)
    if not out.is_dir():
        raise FileNotFoundError(f"there is no folder {str(out)!r}; give the [output] dir of a run")
    if (out / subjects.TABLE).is_file():
        for row in subjects.read_table(out)["subjects"]:
            _rebuild(out, out / row["simulator"], f"-{row['subject']}")
        return subjects.overview(out)
    if not (out / POSTERIOR).is_file():
        raise FileNotFoundError(
            f"{str(out)!r} holds no posterior.npz; run `vbinfer run study.toml`, which goes on from what is there"
        )
    return _rebuild(out, out, "")


def _rebuild(home: Path, shared: Path, subject: str) -> Verdict:
    """A page from `posterior-NAME.npz`, beside a store that subjects share."""
    posterior, evidence, page = (
        home / f"{Path(name).stem}{subject}{Path(name).suffix}" for name in (POSTERIOR, EVIDENCE, REPORT)
    )
    draws = npz.load(shared / STORE) if (shared / STORE / "manifest.json").is_file() else None
    inputs = load_inputs(evidence) if evidence.is_file() else ReportInputs()
    return write_report(page, _expect(posterior, Posterior), draws, inputs, calibration_of(shared))


def _expect(path: Path, kind: type) -> Any:
    found = npz.load(path)
    if not isinstance(found, kind):
        raise ValueError(
            f"{path} holds a {type(found).__name__}; expected a {kind.__name__}: delete it, and repeat the run"
        )
    return found


def calibration_of(out: Path) -> "Calibration | None":
    """The calibration of what lies in a folder."""
    if not (out / CALIBRATION).is_file() or not (out / POSTERIOR).is_file():
        return None
    from vbinfer.diagnostics.calibration.result import Calibration

    found = _expect(out / CALIBRATION, Calibration)
    return found if found.info.get("estimator") == calibrated(out) else None


def calibrated(out: Path) -> str:
    """Identity of the estimator, or of the chains."""
    # weights identify an estimator; a sampler has its draws
    return fingerprint(out / ESTIMATOR if (out / ESTIMATOR).is_file() else out / POSTERIOR)


def fingerprint(path: Path) -> str:
    """Digest of the arrays in a file."""
    return checksum(npz.read(path)[2])


def save_inputs(path: Path, inputs: ReportInputs) -> None:
    """Write the inputs of a report, without users' figures."""
    arrays: dict[str, np.ndarray] = {}
    header = {"inputs": _pack(inputs, arrays)}
    npz.write(path, _KIND, header, arrays)


def load_inputs(path: Path) -> ReportInputs:
    """What `save_inputs` wrote."""
    kind, header, arrays = npz.read(path)
    if kind != _KIND:
        raise ValueError(f"{path} holds a {kind!r}; expected the evidence of a run, which `vbinfer run` writes")
    with npz.rebuilding(path, header):
        return _unpack(header["inputs"], arrays)


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree of records and arrays as JSON.

    Each container becomes a mapping with one entry, `{what it is: its content}`, so that no name in a user's mapping
    can be taken for one of ours.
    """
    name = type(value).__name__
    if name in _KINDS:
        # a matplotlib figure and a prior are objects, which a file of numbers cannot hold
        fields = _KEPT.get(name) or [field.name for field in dataclasses.fields(value)]
        return {name: {field: _pack(getattr(value, field), arrays) for field in fields}}
    if isinstance(value, Mapping):
        return {"mapping": {str(key): _pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_pack(item, arrays) for item in value]}
    # an array leaves its number behind
    if np.ndim(value) > 0:
        arrays[str(len(arrays))] = np.asarray(value)
        return {"array": str(len(arrays) - 1)}
    return value


def _unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(packed, dict):
        return packed
    # one entry, or the file is not ours: `rebuilding` turns the error into a sentence
    ((name, content),) = packed.items()
    if name == "array":
        return arrays[content]
    if name in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[name](_unpack(item, arrays) for item in content)
    fields = {key: _unpack(item, arrays) for key, item in content.items()}
    return fields if name == "mapping" else _KINDS[name](**fields)
