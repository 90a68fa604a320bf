"""`vbinfer status`: how far a run is, by stage."""

import json
from pathlib import Path

from vbinfer.draws.manage import StoreStatus
from vbinfer.draws.store import MANIFEST
from vbinfer.io import npz
from vbinfer.sampling.store import SETTINGS, ChainStore
from vbinfer.study.folder import CALIBRATION, ESTIMATOR, POSTERIOR, TRAINING, read_plan


def status(folder: str | Path) -> str:
    """Lines for a run, a store or chains.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing of vbinfer in it, or something damaged.
    """
    out = Path(folder)
    if not out.is_dir():
        raise FileNotFoundError(f"there is no folder {str(out)!r}; give the [output] dir of a run, or a store")
    if (out / MANIFEST).is_file():
        return _store(out, None)
    if (out / SETTINGS).is_file():
        return _chains(out)
    plan = read_plan(out)
    lines = [
        ("simulation", _store(out / "store", plan.get("draws"))),
        ("training", _training(out)),
        ("posterior", _posterior(out)),
        ("calibration", _calibration(out, plan.get("held_out"))),
        ("verdict", _verdict(out)),
    ]
    found = [(name, words) for name, words in lines if words]
    if not found:
        raise ValueError(f"{str(out)!r} holds nothing of a run yet; `vbinfer run study.toml --out {out}` begins one")
    return "\n".join([str(out), *(f"  {name:<12} {words}" for name, words in found)])


def _store(folder: Path, wanted: int | None) -> str:
    return StoreStatus.of(folder).line(wanted) if (folder / MANIFEST).is_file() else ""


def _training(out: Path) -> str:
    if (out / ESTIMATOR).is_file():
        return "done"
    if not (out / TRAINING).is_file():
        return ""
    return f"{len(npz.read(out / TRAINING)[2]['curves']):,} epochs so far"


def _posterior(out: Path) -> str:
    if several := list(out.glob("posterior-*.npz")):
        return f"of {len(several):,} subjects"
    if not (out / POSTERIOR).is_file():
        return ""
    found = npz.load(out / POSTERIOR)
    return f"{found.num_chains:,} x {found.num_samples:,} draws"


def _calibration(out: Path, wanted: int | None) -> str:
    if (out / CALIBRATION).is_file():
        return f"done: {npz.load(out / CALIBRATION).verdict}"
    place = out / "calibration"
    simulated = _store(place / "held-out", wanted)
    asked = sum(len(npz.read(path)[2].get("rows", ())) for path in (place / "posteriors").glob("chunk-*.npz"))
    return "; ".join(words for words in (simulated, f"{asked:,} asked about" if asked else "") if words)


def _verdict(out: Path) -> str:
    try:
        return str(json.loads((out / "report.json").read_text(encoding="utf-8"))["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _chains(folder: Path) -> str:
    saved = ChainStore.of(folder).read()
    if not saved.pieces:
        return f"{folder}: {saved.warmed:,} steps of warm-up"
    chains, _ = saved.pieces[0].potential_energy.shape
    return f"{folder}: {chains:,} chains of {saved.draws:,} draws so far, warm-up done ({saved.warmed:,} steps)"
