"""Bundled connectomes, recordings and morphologies; readers for others."""

import dataclasses
import math
import os
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vbinfer import _check

from ._param import did_you_mean
from .io import archive
from .network.connectome import Connectome

if TYPE_CHECKING:
    from .cable.swc import Morphology

BUNDLED = {"hcp-aal2": "hcp_aal2"}
MORPHOLOGIES = {"ca1-pyramidal": "ca1_pyramidal/NMO_49821.swc"}
_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".npy", ".npz", ".zip")

_SECONDS_BELOW = 20.0
"""ms; a period below that is no whole number of Hz (720 ms written as 0.72) may have been written in seconds."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording, `[T, N]`, with its sampling period.

    What `Summary` and reports take as observed.

    Args:
        values: `[T, N]`, time in rows; kept as float32, units and mean as in the source.
        period: ms between samples (fMRI: the repetition time).
        labels: one name per channel, or None where the source has none.
        name: where it comes from, for reports.

    Raises:
        ValueError: not `[T, N]`; a channel that holds NaN or infinities, or that never changes (named); a period that
            is not positive; labels that do not fit.

    Example:
        >>> import numpy as np
        >>> bold = Recording(np.random.default_rng(0).normal(100.0, 3.0, (50, 4)), period=720.0)
        >>> bold.duration, len(bold.segments(7200.0))
        (36000.0, 5)
    """

    values: np.ndarray
    period: float
    labels: tuple[str, ...] | None = None
    name: str = "recording"

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float32, order="C")
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"{self.name} has shape {list(values.shape)}; expected [T, N], time in rows")
        if 0 < self.period < _SECONDS_BELOW and abs(1e3 / self.period - round(1e3 / self.period)) > 1e-6:
            warnings.warn(
                f"{self.name} has period {self.period:g} ms, {1e3 / self.period:,.0f} samples a second; write "
                f"period={1e3 * self.period:g} if it is {self.period:g} s",
                stacklevel=3,
            )
        if not (math.isfinite(self.period) and self.period > 0):
            raise ValueError(f"{self.name} has period {self.period}; give the ms between samples, for example 720.0")
        labels = None if self.labels is None else tuple(str(label) for label in self.labels)
        if labels is not None and len(labels) != values.shape[1]:
            raise ValueError(f"{self.name} has {len(labels)} labels for {values.shape[1]} channels; give one for each")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "period", float(self.period))
        self._check_channels()

    def _check_channels(self) -> None:
        broken = np.any(~np.isfinite(self.values), axis=0)
        if broken.any():
            raise ValueError(
                f"{self.name} holds NaN, infinite or missing values in {self._list(broken)}; "
                "fill them in or leave these channels out, here and in the connectome"
            )
        constant = np.ptp(self.values, axis=0) == 0.0
        if constant.any():
            raise ValueError(
                f"{self.name} is constant in {self._list(constant)}, which has no correlation with anything; "
                "leave these channels out, here and in the connectome"
            )

    def _list(self, which: np.ndarray) -> str:
        index = np.flatnonzero(which)
        shown = [str(i) if self.labels is None else f"{i} ({self.labels[i]})" for i in index[:8]]
        more = f" and {len(index) - 8} more" if len(index) > 8 else ""
        return f"channel {shown[0]}" if len(index) == 1 else f"channels {', '.join(shown)}{more}"

    @property
    def n_channels(self) -> int:
        """The number of channels, N."""
        return self.values.shape[1]

    @property
    def duration(self) -> float:
        """Length in ms: samples times period."""
        return self.values.shape[0] * self.period

    def segment(self, start: float, length: float) -> "Recording":
        """The whole samples of a stretch of time.

        `length` ms from `start` ms on; sample k covers `k * period` to `(k + 1) * period`.

        Raises:
            ValueError: a segment shorter than one sample or not within the recording.
        """
        start, length = _check.number(start, "start", 0.0), _check.positive(length, "length", 60e3, "ms")
        first, count = round(start / self.period), math.floor(length / self.period + 1e-6)
        if first < 0 or count < 1 or first + count > len(self.values):
            raise ValueError(
                f"a segment of {length:g} ms from {start:g} ms on was asked of {self.name}, which lasts "
                f"{self.duration:g} ms in samples of {self.period:g} ms; choose one within it"
            )
        name = f"{self.name}, {first * self.period / 1e3:g}-{(first + count) * self.period / 1e3:g} s"
        return dataclasses.replace(self, values=self.values[first : first + count], name=name)

    def segments(self, length: float) -> "list[Recording]":
        """Segments of `length` ms that follow each other.

        A shorter rest is left out.
        """
        count = math.floor(length / self.period + 1e-6)
        many = len(self.values) // count if count else 0
        starts = [i * count * self.period for i in range(max(many, 1))]
        return [self.segment(start, length) for start in starts]

    def select(self, labels: tuple[str, ...]) -> "Recording":
        """The channels with these names, in this order: `recording.select(connectome.labels)`."""
        known = self.labels or ()
        for label in labels:
            if label not in known:
                raise ValueError(f"{self.name} has no channel {label!r}. {did_you_mean(label, known)}")
        columns = [known.index(label) for label in labels]
        return dataclasses.replace(self, values=self.values[:, columns], labels=tuple(labels))

    @classmethod
    def from_file(cls, path: str | Path, period: float | None = None) -> "Recording":
        """Read `[T, N]` from csv, npy or npz.

        Csv with comma, semicolon, tab or blanks, with or without a line of names.

        An npz has the array `values`, or just one array, and may have `period` and `labels`. A table with fewer lines
        than columns gives a warning: it may be transposed.

        Raises:
            FileNotFoundError, ValueError: no such file; a cell that is no number (with line and column), lines of
                unequal length; no period; whatever `Recording` refuses.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}; give the path of a csv, npy or npz with [T, N]")
        from .io import tables  # here, since bundled recordings need none

        values, labels, stored = tables.read(path)
        period = stored if period is None else period
        if period is None:
            raise ValueError(f"{path.name} does not say its sampling period; add period=, in ms (TR 0.72 s is 720.0)")
        if values.shape[0] < values.shape[1]:
            warnings.warn(
                f"{path.name} has {values.shape[0]} samples of {values.shape[1]} channels; rows must be time, "
                "transpose it if it is [channel, time]",
                stacklevel=2,
            )
        return cls(values, period, labels, path.name)


def _places() -> list[Path]:
    """Folders with data: `$VBINFER_DATA`, the repository's, a wheel's."""
    own = os.environ.get("VBINFER_DATA")
    here, wheel = (
        Path(__file__).resolve().parent.parent / "data",
        Path(sysconfig.get_path("data")) / "share" / "vbinfer",
    )
    return [*([Path(own).expanduser()] if own else []), here, wheel]


def _folder(name: str, file: str) -> Path:
    """Where a file of a bundled data set lies."""
    if name not in BUNDLED:
        raise ValueError(
            f"there is no data set {name!r}. {did_you_mean(name, BUNDLED)} For a file of your own, give its path"
        )
    *places, wheel = _places()
    for place in places:
        if (place / BUNDLED[name] / file).is_file():
            return place / BUNDLED[name] / file
    script = f"build_{BUNDLED[name]}.py"
    installed = wheel / script
    here = installed.is_file() and not (places[-1] / script).is_file()
    command = f"Run\n    python {installed}" if here else f"In a clone of the repository run\n    python data/{script}"
    raise FileNotFoundError(
        f"{name!r} is not in {' nor in '.join(map(str, places))}: data do not come with the installed package. "
        f"{command} --out DIR\n(it downloads them with pip) and set the environment variable VBINFER_DATA to DIR"
    )


def _is_file(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith(_SUFFIXES) or "/" in name or os.sep in name or Path(name).exists()


def load_connectome(name: str | Path, *, normalise: str | None = "bundled") -> Connectome:
    """A bundled connectome, or one of your own.

    `"hcp-aal2"`: group average of 7 HCP participants, 80 cortical AAL2 regions, streamline counts and tract lengths in
    mm, symmetric, without centres. HCP Open Access Data Use Terms: `data/hcp_aal2/LICENSE.md`.

    Args:
        name: `"hcp-aal2"`; or a TVB zip or folder, or an npz with `weights`, `tract_lengths`[, `labels`, `centres`].
        normalise: `"bundled"`: a bundled data set is divided by its largest weight, with zeros on the diagonal, and a
            file is taken as it is. None: as in the source, for bundled data the streamline counts. Otherwise an option
            of `Connectome.normalise`.

    Raises:
        ValueError: an unknown name (with the closest known one).
        FileNotFoundError: data that are not here, with the command that rebuilds them.

    Example:
        >>> import vbinfer as vb
        >>> sc = vb.load_connectome("hcp-aal2")
        >>> sc.n_nodes, sc.labels[0], float(sc.weights.max())
        (80, 'Precentral_L', 1.0)
    """
    if str(name) not in BUNDLED and _is_file(name):
        connectome, default = Connectome.from_file(name), None
    else:
        connectome, default = Connectome.from_npz(_folder(str(name), "connectome.npz")), "max"
    how = default if normalise == "bundled" else normalise
    return connectome if how is None else connectome.normalise(how)


def load_recording(name: str | Path, participant: int = 1, *, period: float | None = None) -> Recording:
    """A bundled recording, or one of your own.

    `"hcp-aal2"`: resting fMRI (REST1, LR) of 7 HCP participants, the 80 regions of `load_connectome("hcp-aal2")` in the
    same order, 1200 volumes, TR 720 ms. Scanner units, mean not removed, not filtered here.

    Args:
        name: `"hcp-aal2"`; or a csv, npy or npz file with `[T, N]` (see `Recording.from_file`).
        participant: 1 to 7, of a bundled data set.
        period: ms between samples, of a file.

    Raises:
        ValueError: an unknown name; a participant that there is not; whatever `Recording` refuses.
        FileNotFoundError: no such file; data that are not here, with the command that rebuilds them.

    Example:
        >>> import vbinfer as vb
        >>> bold = vb.load_recording("hcp-aal2", participant=3)
        >>> bold.values.shape, bold.period, bold.labels[79]
        ((1200, 80), 720.0, 'Temporal_Inf_R')
    """
    period = None if period is None else _check.positive(period, "period", 720.0, "ms")
    if str(name) not in BUNDLED and _is_file(name):
        return Recording.from_file(name, period)
    path = _folder(str(name), "bold.npz")
    try:
        stored = archive.load(path)
        scans, offset, scale = stored["bold"], stored["offset"], stored["scale"]
        its_period, labels = float(stored["period"]), tuple(stored["labels"].tolist())
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}); build it again with python data/build_{BUNDLED[str(name)]}.py"
        ) from error
    if not _check.is_count(participant) or participant not in range(1, len(scans) + 1):
        raise ValueError(f"participant={participant!r} was asked of {name!r}; it has participants 1 to {len(scans)}")
    i = participant - 1
    # stored as int16 with an offset and a scale per channel
    values = offset[i] + scale[i] * scans[i]
    if period is not None and period != its_period:
        raise ValueError(f"period={period:g} ms was given for {name!r}, which has {its_period:g} ms; leave it out")
    return Recording(values, its_period, labels, f"{name}, participant {participant}")


def load_morphology(name: str | Path) -> "Morphology":
    """A bundled morphology, or one of your own.

    `"ca1-pyramidal"`: a pyramidal cell of the rat hippocampus, NMO_49821 of NeuroMorpho.Org (CC BY 4.0), of
    Hönigsperger et al. 2015 (10.1113/jphysiol.2014.280826); 220 sections, um.

    Args:
        name: `"ca1-pyramidal"`; or an SWC file, see `vb.cable.read_swc`.

    Raises:
        FileNotFoundError: neither a file nor a known name, with the closest one.
        ValueError: whatever `read_swc` refuses.

    Example:
        >>> import vbinfer as vb
        >>> vb.cable.compartments(vb.load_morphology("ca1-pyramidal"), max_length=20.0)
        Compartments(622; soma: 1, dend: 235, axon: 12, apic: 374)
    """
    from .cable.swc import read_swc  # here, since networks of regions need none

    if str(name) in MORPHOLOGIES:
        found = [place / MORPHOLOGIES[str(name)] for place in _places()]
        return read_swc(next((path for path in found if path.is_file()), found[0]))
    path = Path(name)
    if not path.is_file():
        known = did_you_mean(str(name), MORPHOLOGIES)
        raise FileNotFoundError(f"there is no SWC file {str(name)!r} and no morphology of that name. {known}")
    return read_swc(path)


def match(connectome: Connectome, recording: Recording) -> None:
    """Check that connectome rows are the channels of a recording.

    Same number and, where both are named, same order.

    Labels are compared only where both have them and share some: other naming schemes cannot be told apart.

    Raises:
        ValueError: different numbers; the same names in another order.
    """
    nodes, channels = connectome.n_nodes, recording.n_channels
    known = set(connectome.labels or ())
    # names of different atlases share none: then only the numbers can be compared
    shared = known.intersection(recording.labels or ())
    choose = ""
    if connectome.labels and shared == known:
        choose = "; recording.select(connectome.labels) picks and orders the channels"
    if nodes != channels:
        raise ValueError(
            f"recording has {channels} channels but the connectome has {nodes} nodes; "
            f"column k of the recording must be row k of the connectome{choose}"
        )
    check_order(connectome.labels, recording, "row", "of the connectome", choose)


def check_order(labels: Sequence[str] | None, recording: Recording, kind: str, owner: str, remedy: str = "") -> None:
    """Refuse labels that the channels share in another order.

    As many as there are channels; `kind` and `owner` say what they name.
    """
    pairs = list(zip(labels or (), recording.labels or (), strict=False))
    if set(labels or ()).intersection(recording.labels or ()):
        for k, (own, channel) in enumerate(pairs):
            if own != channel:
                raise ValueError(
                    f"{kind} {k} {owner} is {own!r} but column {k} of the recording is {channel!r}; "
                    f"bring them into the same order{remedy}"
                )
