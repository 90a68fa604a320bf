"""Ways to install: a wheel alone, the lines of the Dockerfile, the lock."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COPIED = re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M)


def copied(place: Path) -> Path:
    """What the Dockerfile copies: all that a wheel is made of."""
    place.mkdir()
    for name in " ".join(COPIED).split():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    return place


def run(*command: str | Path, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A process outside of this repository, which knows nothing of its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VBINFER", "PYTHON", "JAX"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=1_500,
    )


def environment_with(place: Path) -> Path:
    """A fresh environment that sees the packages of this one, but not vbinfer; its Python."""
    assert run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent).returncode == 0
    python = place / "bin" / "python"
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).stdout.strip()
    (Path(purelib) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_a_wheel_runs_without_the_data_and_says_how_to_make_them(tmp_path):
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    source = copied(tmp_path / "source")
    build = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    made = run(*pip, *build, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".npz", ".npy", ".csv"))]
    python = environment_with(tmp_path / "env")
    done = run(*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = run(python.parent / "vbinfer", "example", cwd=tmp_path)
    assert tomllib.loads(study.stdout)["data"]["connectome"] == "hcp-aal2"
    load = "import vbinfer as vb; sc = vb.load_connectome('hcp-aal2', normalise=None); print(sc.weights.sum())"
    refused = run(python, "-c", load, cwd=tmp_path)
    assert "FileNotFoundError" in refused.stderr
    (script,) = re.findall(r"^    python (.*) --out DIR$", refused.stderr, re.M)
    built = run(python, script, "--out", tmp_path / "mine", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    found = run(python, "-c", load, cwd=tmp_path, VBINFER_DATA=str(tmp_path / "mine"))
    weights = np.load(ROOT / "data" / "hcp_aal2" / "connectome.npz")["weights"]
    assert float(found.stdout) == pytest.approx(weights.sum(), rel=1e-6)


@pytest.mark.slow
def test_the_lines_of_the_dockerfile_run_in_a_fresh_environment(tmp_path):
    """As `docker build --build-arg TORCH=torch==<this one>`: the same shell lines, in a copy of what is copied."""
    import torch

    text = (ROOT / "Dockerfile").read_text()
    lines = re.findall(r"^RUN (.*)$", text, re.M)
    assert [line for line in lines if line.startswith("pip install")] == lines[:2]
    assert run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path).returncode == 0
    source = copied(tmp_path / "source")
    path = f"{tmp_path / 'env' / 'bin'}:{os.environ['PATH']}"
    for line in lines:
        line = line.replace("/opt/vbinfer", str(source))
        done = run("bash", "-c", line, cwd=source, PATH=path, TORCH=f"torch=={torch.__version__}")
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    study = run(tmp_path / "env" / "bin" / "vbinfer", "example", cwd=tmp_path)
    assert tomllib.loads(study.stdout)["data"]["connectome"] == "hcp-aal2"


def locked() -> dict[str, tuple[str, bool]]:
    """`{"jax": ("0.10.2", True)}`: the version, and whether pyproject.toml asks for it by name."""
    entry = re.compile(r"^([a-z0-9_.-]+)==([^\s;]+).*\n((?: +#.*\n)*)", re.M)
    found = entry.findall((ROOT / "requirements.lock").read_text())
    return {name: (version, "vbinfer" in why) for name, version, why in found}


def test_the_lock_is_that_of_pyproject():
    """Each requirement is pinned at its floor or above, and nothing is pinned for a requirement that is gone."""
    floors = {}
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        name, _, floor = line.lower().replace("_", "-").partition(">=")
        floors[name] = floor
    pins = locked()
    assert {name for name, (_, asked) in pins.items() if asked} == set(floors)

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]

    assert [name for name, floor in floors.items() if numbers(pins[name][0]) < numbers(floor)] == []
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]
