"""What a run leaves in its folder for the report, so that the page can be made again without computing anything."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer.datasets import Recording
from vbinfer.diagnostics.calibration.result import Calibration
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.reporting.evidence import Extras, Recovery
from vbinfer.reporting.page import report
from vbinfer.reporting.section import Section
from vbinfer.reporting.verdict import Verdict

CALIBRATION, EVIDENCE, ESTIMATOR, POSTERIOR = "calibration.npz", "evidence.npz", "estimator.npz", "posterior.npz"
TRAINING = "training.npz"
"""The checkpoint of a fit: an interrupted one goes on from it, a finished one is not repeated."""
PLAN = "run.json"
"""What was asked for, so that `vbinfer status` can say how much of it is there."""
_KIND = "evidence"
_REPORT = "report.html"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The inputs of a report beside posterior, draws and calibration, which have files of their own."""

    fit: FitInfo | None = None
    predictive: Predictive | None = None
    recording: Recording | None = None
    theta_true: Mapping[str, Any] | None = None
    extras: Extras = dataclasses.field(default_factory=Extras)


def write_plan(out: Path, **numbers: int | None) -> None:
    """Make the folder of a run, with the numbers that were asked for; those that are None stay as they were."""
    asked = {**read_plan(out), **{name: value for name, value in numbers.items() if value is not None}}
    npz.write_text(out / PLAN, npz.to_json(asked) + "\n")


def read_plan(out: Path) -> dict[str, int]:
    """The numbers that were asked for; none where the file is missing or damaged: they only complete a sentence."""
    try:
        found = json.loads((out / PLAN).read_text(encoding="utf-8"))
        return {str(name): value for name, value in found.items() if isinstance(value, int)}
    except (OSError, ValueError, AttributeError):
        return {}


def write_report(
    out: Path, posterior: Posterior, draws: Draws | None, bundle: Bundle, calibration: Calibration | None
) -> Verdict:
    """The page and the JSON of a run."""
    return report(
        posterior,
        draws=draws,
        fit=bundle.fit,
        calibration=calibration,
        predictive=bundle.predictive,
        observed=bundle.recording,
        theta_true=bundle.theta_true,
        extras=bundle.extras,
        out=out / _REPORT,
    )


def rebuild(folder: str | Path) -> Verdict:
    """The report of a run from what is in its folder; questions whose evidence is missing are named on the page.

    Raises:
        FileNotFoundError: no such folder, or no posterior in it.
        ValueError: a damaged file.
    """
    out = Path(folder)
    if not out.is_dir():
        raise FileNotFoundError(f"there is no folder {str(out)!r}; give the [output] dir of a run")
    if not (out / POSTERIOR).is_file():
        raise FileNotFoundError(
            f"{str(out)!r} holds no posterior.npz; run `vbinfer run study.toml`, which goes on from what is there"
        )
    draws = npz.load(out / "store") if (out / "store" / "manifest.json").is_file() else None
    bundle = load_bundle(out / EVIDENCE) if (out / EVIDENCE).is_file() else Bundle()
    return write_report(out, _expect(out / POSTERIOR, Posterior), draws, bundle, calibration_of(out))


def _expect(path: Path, kind: type) -> Any:
    found = npz.load(path)
    if not isinstance(found, kind):
        raise ValueError(
            f"{path} holds a {type(found).__name__}; expected a {kind.__name__}: delete it, and repeat the run"
        )
    return found


def calibration_of(out: Path) -> Calibration | None:
    """The calibration in a folder, if it is of the estimator there; another one says nothing of this run."""
    if not (out / CALIBRATION).is_file() or not (out / ESTIMATOR).is_file():
        return None
    found = _expect(out / CALIBRATION, Calibration)
    return found if found.info.get("estimator") == fingerprint(out / ESTIMATOR) else None


def fingerprint(path: Path) -> str:
    """SHA-256 of the weights in a file; training times and versions do not count."""
    return checksum(npz.read(path)[2])


def save_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle to one file, whole or not at all. Figures of own sections are not kept."""
    arrays: dict[str, np.ndarray] = {}
    extras = bundle.extras
    header: dict[str, Any] = {
        "theta_true": None if bundle.theta_true is None else dict(bundle.theta_true),
        "notes": {str(name): value for name, value in extras.notes.items()},
        "units": dict(extras.units),
        "title": extras.title,
        "fcd": list(extras.fcd),
        "sections": [
            [s.title, s.text, None if s.table is None else [[*row] for row in s.table]] for s in extras.sections
        ],
    }
    if bundle.fit is not None:
        record = {field.name: getattr(bundle.fit, field.name) for field in dataclasses.fields(FitInfo)}
        arrays |= {f"fit.{name}": np.asarray(record.pop(name)) for name in ("train", "val")}
        header["fit"] = record
    for tag, item in (("predictive", bundle.predictive), ("prior", extras.prior_predictive)):
        if item is not None:
            header[tag] = _pack_predictive(arrays, tag, item)
    if extras.recovery is not None:
        header["recovery"] = [
            _pack(arrays, "recovery.truth", extras.recovery.theta_true),
            _pack(arrays, "recovery.theta", extras.recovery.theta),
        ]
    header["replicates"] = [
        [name, _pack(arrays, f"replicate{i}", other.theta)] for i, (name, other) in enumerate(extras.replicates.items())
    ]
    if extras.structural is not None:
        arrays["structural"] = np.asarray(extras.structural)
    if bundle.recording is not None:
        arrays["recording"] = bundle.recording.values
        labels = None if bundle.recording.labels is None else [*bundle.recording.labels]
        header["recording"] = [bundle.recording.period, labels, bundle.recording.name]
    npz.write(path, _KIND, header, arrays)


def load_bundle(path: Path) -> Bundle:
    """What `save_bundle` wrote."""
    kind, header, arrays = npz.read(path)
    if kind != _KIND:
        raise ValueError(f"{path} holds a {kind!r}; expected the evidence of a run, which `vbinfer run` writes")
    with npz.rebuilding(path, header):
        return _bundle(header, arrays)


def _bundle(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Bundle:
    fit = None
    if "fit" in header:
        record = {**header["fit"], "members": tuple(header["fit"]["members"])}
        fit = FitInfo(train=arrays["fit.train"], val=arrays["fit.val"], **record)
    recording = None
    if "recording" in header:
        period, labels, name = header["recording"]
        recording = Recording(arrays["recording"], period, None if labels is None else tuple(labels), name)
    recovery = None
    if "recovery" in header:
        truth, theta = header["recovery"]
        recovery = Recovery(_unpack(arrays, "recovery.truth", truth), _unpack(arrays, "recovery.theta", theta))
    extras = Extras(
        prior_predictive=_unpack_predictive(arrays, "prior", header.get("prior")),
        recovery=recovery,
        replicates={
            name: Posterior(_unpack(arrays, f"replicate{i}", paths))
            for i, (name, paths) in enumerate(header["replicates"])
        },
        structural=arrays.get("structural"),
        sections=[Section(title, text=text, table=table) for title, text, table in header["sections"]],
        notes=header["notes"],
        units=header["units"],
        fcd=(header["fcd"][0], header["fcd"][1]),
        title=header["title"],
    )
    predictive = _unpack_predictive(arrays, "predictive", header.get("predictive"))
    return Bundle(fit, predictive, recording, header["theta_true"], extras)


def _pack(arrays: dict[str, np.ndarray], tag: str, leaves: Mapping[str, Any]) -> list[str]:
    """Put leaves among the arrays under numbers, since paths may hold any sign; their names for the header."""
    arrays |= {f"{tag}.{i}": np.asarray(value) for i, value in enumerate(leaves.values())}
    return list(leaves)


def _unpack(arrays: Mapping[str, np.ndarray], tag: str, names: list[str]) -> dict[str, np.ndarray]:
    return {name: arrays[f"{tag}.{i}"] for i, name in enumerate(names)}


def _pack_predictive(arrays: dict[str, np.ndarray], tag: str, item: Predictive) -> dict[str, Any]:
    arrays |= {f"{tag}.x": np.asarray(item.x), f"{tag}.valid": np.asarray(item.valid)}
    several = item.ys if isinstance(item.ys, Mapping) else {} if item.ys is None else {"": item.ys}
    return {
        "names": list(item.names),
        "theta": _pack(arrays, f"{tag}.theta", item.theta),
        "ys": _pack(arrays, f"{tag}.ys", several),
    }


def _unpack_predictive(arrays: Mapping[str, np.ndarray], tag: str, header: Any) -> Predictive | None:
    if header is None:
        return None
    several = _unpack(arrays, f"{tag}.ys", header["ys"])
    ys = None if not several else several.get("", several)
    theta = _unpack(arrays, f"{tag}.theta", header["theta"])
    return Predictive(arrays[f"{tag}.x"], tuple(header["names"]), ys, arrays[f"{tag}.valid"], theta)
