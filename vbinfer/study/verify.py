"""Make a run's numbers again; name what differs."""

import dataclasses
import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer.draws.draws import Draws
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum

from . import folder
from .run import Say, calibrate_study, run_study, stage_keys
from .study import Study

HERE, ELSEWHERE = 1e-5, 0.05
"""Tolerances on the machine of the run, where only the order of sums may change, and on another, where rounding differs
from the first step of training on. In units of the sd of an array, or relative to a number that stands alone."""
_KINDS = ("estimator", "posterior", "pooled", "population", "evidence", "calibration", "report", "subjects")


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `vb.verify_study` found.

    Attributes:
        differences: a sentence each: which file, which number, by how much.
        numbers: how many were compared.
        tolerance: largest difference that passes, in sd of an array or relative.
        same_machine: whether versions and processor are those of the run.
    """

    differences: tuple[str, ...]
    numbers: int
    tolerance: float
    same_machine: bool

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        where = "of this machine" if self.same_machine else "of another machine or version"
        head = f"a run {where}: {self.numbers:,} numbers made again, tolerance {self.tolerance:g}"
        return "\n".join([head, *(f"  - {one}" for one in self.differences or ("all of them agree",))])


def verify_study(
    out: str | Path, *, study: str | Path | None = None, tolerance: float | None = None, say: Say | None = None
) -> Verification:
    """Make every number of a run again.

    In a folder of its own, from the simulations in `store/` and the seed: training, posterior, checks and report. The
    folder of the run stays as it is. Simulations are made again where they are not those that the estimator was trained
    on, to name the draws that were changed.

    Args:
        out: the folder of a run.
        study: its study file, where that has moved; recordings and connectomes are looked for beside it.
        tolerance: instead of 1e-5 on the machine of the run and 0.05 elsewhere; in sd of an array, or relative to a
            number that stands alone.
        say: takes a line for every stage.

    Raises:
        FileNotFoundError: no such folder, no study file, or no record of one.
    """
    tolerance = None if tolerance is None else _check.number(tolerance, "tolerance", 1e-5, least=0.0)
    place = Path(out)
    origin = read_origin(place)
    path = Path(study) if study is not None else (place / origin["path"]).resolve()
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no study file {str(path)!r}; write `vbinfer verify {out} --study study.toml`"
        )
    same = origin["machine"] == folder.machine()
    tolerance = (HERE if same else ELSEWHERE) if tolerance is None else tolerance
    with tempfile.TemporaryDirectory(prefix="vbinfer-verify-") as temporary:
        again = Study.from_text(origin["text"], path, out=Path(temporary) / "run", data=origin["data"])
        again = dataclasses.replace(
            again, draws=origin["draws"], calibration=dataclasses.replace(again.calibration, draws=origin["held_out"])
        )
        found = [*_study_changes(path, origin["text"]), *_linked(place, again.out)]
        (calibrate_study if (place / folder.CALIBRATION).is_file() else run_study)(again, say=say)
        for one in again.simulators:
            if not one.is_sampler:
                found += _store_changes(one, place / one.out.relative_to(again.out), tolerance)
        differences, count = _compared(place, again.out, tolerance)
    return Verification((*found, *differences), count, tolerance, same)


def read_origin(out: Path) -> dict[str, Any]:
    """The study file of a run, as it was."""
    if not out.is_dir():
        raise FileNotFoundError(f"there is no folder {str(out)!r}; give the [output] dir of a run")
    if not (out / folder.ORIGIN).is_file():
        raise FileNotFoundError(
            f"{str(out)!r} has no {folder.ORIGIN}, which keeps the study file of a run; repeat `vbinfer run "
            "study.toml`, which goes on from what is there"
        )
    return json.loads((out / folder.ORIGIN).read_text(encoding="utf-8"))


def _study_changes(path: Path, before: str) -> Iterator[str]:
    now = path.read_text(encoding="utf-8")
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    if changed:
        shown = "; ".join(f"{'now' if line[0] == '+' else 'was'} {line[1:].strip()!r}" for line in changed[:6])
        yield f"{path.name}: changed since the run: {shown}; the numbers are made from the file as it was"


def _linked(out: Path, again: Path) -> Iterator[str]:
    """Sound store files in the new folder; others by name."""
    for manifest in sorted(out.rglob("manifest.json")):
        store = manifest.parent
        for path in sorted(store.iterdir()):
            if path.suffix not in (".npz", ".json"):
                continue
            try:
                if path.suffix == ".npz":
                    npz.read(path)
            except ValueError as error:
                yield f"{path.relative_to(out)}: {error}"
                continue
            target = again / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:  # files of a store are replaced, never written to
                os.link(path, target)
            except OSError:
                shutil.copy2(path, target)


def _store_changes(again: Study, out: Path, tolerance: float) -> list[str]:
    """Draws that are not those of the training, by name."""
    try:
        trained = folder.load_inputs(out / folder.EVIDENCE).trained
    except (ValueError, FileNotFoundError):
        return []  # named where files are compared
    draws = sample_prior_predictive(
        again.prior, again.forward, again.draws, key=stage_keys(again)["draws"], store=again.out / folder.STORE,
        progress=False,
    )  # fmt: skip
    if trained is None or trained.startswith(checksum({**draws.theta, "x of the draws": draws.x})):
        return []
    fresh = sample_prior_predictive(
        again.prior, again.forward, again.draws, key=stage_keys(again)["draws"], progress=False
    )
    return [
        f"{folder.STORE}/: {what} of draw {i} is {was:.6g}, made again {now:.6g}"
        for what, i, was, now in _changed_draws(draws, fresh, tolerance)
    ] or [f"{folder.STORE}/: its draws are right, and are not those that {folder.ESTIMATOR} was trained on"]


def _changed_draws(draws: Draws, fresh: Draws, tolerance: float, most: int = 8) -> list[tuple[str, int, float, float]]:
    found = []
    columns = {f"x[{name!r}]": (draws.x[:, k], fresh.x[:, k]) for k, name in enumerate(draws.names)}
    columns |= {f"theta[{name!r}]": (value, fresh.theta[name]) for name, value in draws.theta.items()}
    for what, pair in columns.items():
        was, now = (np.asarray(v, float).reshape(len(draws), -1) for v in pair)
        off = np.abs(was - now) / _scale(now)
        rows = np.flatnonzero((off > tolerance).any(axis=1) | (np.isfinite(was) != np.isfinite(now)).any(axis=1))
        found += [(what, int(i), float(was[i, np.argmax(off[i])]), float(now[i, np.argmax(off[i])])) for i in rows]
    return found[:most]


def _compared(out: Path, again: Path, tolerance: float) -> tuple[list[str], int]:
    """Differences between two runs, and number of numbers."""
    found, count = [], 0
    for path in sorted(path for path in again.rglob("*") if _holds_results(path.relative_to(again))):
        name = str(path.relative_to(again))
        if not (out / name).is_file():
            found.append(f"{name}: is missing, and the study makes it")
            continue
        try:
            was, now = _numbers_of(out / name), _numbers_of(path)
        except ValueError as error:
            found.append(f"{name}: {error}")
            continue
        for what in sorted(was.keys() | now.keys()):
            if what not in was or what not in now:
                found.append(f"{name}: {what} is {'not there' if what not in was else 'not made again'}")
                continue
            count += np.size(was[what])
            found += [f"{name}: {what}{words}" for words in _difference(was[what], now[what], tolerance)]
    return found, count


def _holds_results(path: Path) -> bool:
    inside = {folder.STORE, folder.CHAINS, "calibration"}.intersection(path.parts[:-1])
    return not inside and path.suffix in (".npz", ".json") and path.name.startswith(_KINDS)


def _numbers_of(path: Path) -> dict[str, np.ndarray]:
    """Arrays or JSON numbers of a file, by name."""
    if path.suffix == ".npz":
        return {name: value for name, value in npz.read(path)[2].items() if value.dtype.kind in "fiub"}
    try:
        return dict(_leaves(json.loads(path.read_text(encoding="utf-8")), ""))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"is not JSON: {error}") from error


def _leaves(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{name}[{i}]")
    elif isinstance(value, int | float):
        yield name, np.asarray(value, float)


def _scale(values: np.ndarray) -> float:
    """sd of an array, or size of a constant."""
    finite = values[np.isfinite(values)]
    sd = float(finite.std()) if finite.size > 1 else 0.0
    return sd or float(np.abs(finite).max(initial=0.0)) or 1.0


def _difference(was: np.ndarray, now: np.ndarray, tolerance: float) -> list[str]:
    if was.shape != now.shape:
        return [f" is {list(was.shape)}, made again {list(now.shape)}"]
    a, b = np.asarray(was, float), np.asarray(now, float)
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b) / _scale(a)
    off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.where(np.isnan(off), np.inf, off))
    if not off.size or off.max() <= tolerance:
        return []
    worst = np.unravel_index(np.argmax(off), off.shape)
    many = f" ({int((off > tolerance).sum()):,} of {off.size:,} numbers differ)" if off.size > 1 else ""
    at = f"[{', '.join(map(str, map(int, worst)))}]" if worst else ""
    return [f"{at} is {a[worst]:.6g}, made again {b[worst]:.6g}: off by {off[worst]:.2g}{many}"]
