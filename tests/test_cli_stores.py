"""`vbinfer simulate`, `status` and `merge`: the draws of a study in parts, and how far it is."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from small_study import command

import vbinfer as vb
from vbinfer.cli.main import main
from vbinfer.cli.status import status
from vbinfer.neural.npe import NPE


@pytest.fixture(scope="module")
def folder(study_files, tmp_path_factory):
    return Path(shutil.copytree(study_files, tmp_path_factory.mktemp("stores") / "study"))


def test_parts_that_ran_apart_are_the_store_of_one_run_and_status_counts_them(folder, capsys):
    two = command("simulate", "study.toml", "--shard", "2/2", "--out", "parts", cwd=folder)
    assert two.returncode == 0, two.stderr
    assert "128 draws" in two.stdout
    assert "128 of 256 draws in 2 shards" in status(folder / "parts")
    here = ["simulate", str(folder / "study.toml"), "--cores", "1", "--out"]
    assert main([*here, str(folder / "parts"), "--shard", "1/2", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*here, str(folder / "whole")]) == 0
    assert "about" in capsys.readouterr().out  # what it will cost, before it starts
    for path in (folder / "whole" / "store").glob("*.npz"):
        assert path.read_bytes() == (folder / "parts" / "store" / path.name).read_bytes()
    assert "256 of 256 draws in 4 shards" in status(folder / "parts")
    assert "training" not in status(folder / "parts")


def test_status_says_how_far_training_is_and_what_is_over(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"draws": 300}')
    prior, key = vb.Prior({"a": dist.Uniform(0.0, 1.0)}), jax.random.key(0)
    draws = vb.Draws.from_arrays({"a": np.linspace(0, 1, 300)}, np.linspace(0, 2, 300)[:, None])
    estimator = NPE(density=vb.densities.MDN(), training=vb.densities.Training(max_epochs=3))
    amortized, _ = estimator.fit(draws, prior, key=key, checkpoint=tmp_path / "training.npz")
    assert "3 epochs so far" in status(tmp_path)
    amortized.save(tmp_path / "estimator.npz")
    amortized.sample(draws.x[3], n=70, key=key).save(tmp_path / "posterior.npz")
    (tmp_path / "report.json").write_text(json.dumps({"verdict": "warn"}))
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for words in ("training     done", "posterior    1 x 70 draws", "verdict      warn"):
        assert words in said


def test_merge_joins_the_stores_of_one_study(folder, tmp_path, capsys):
    source = str(folder / "whole" / "store")
    assert main(["merge", str(tmp_path / "all"), source, source]) == 0
    assert "256 draws" in capsys.readouterr().out
    for path in (tmp_path / "all").glob("*.npz"):
        assert path.read_bytes() == (Path(source) / path.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "nowhere"], "there is no folder 'nowhere'; give the [output] dir of a run, or a store"),
        (["status", "."], "holds nothing of a run yet; `vbinfer run study.toml --out"),
        (["merge", "new", "nowhere"], "has no readable manifest.json"),
    ],
)
def test_mistakes(folder, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/4", "5/4", "3", "1/", "-1/2", "1.5/2"])
def test_a_part_that_is_none(shard, capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "study.toml", f"--shard={shard}"])
    assert f"'{shard}' was given; expected I/N with I from 1 to N, such as 3/8" in capsys.readouterr().err


def test_a_study_file_alone_connects_to_nobody(folder, monkeypatch, capsys):
    """Whoever runs a Dask scheduler can run anything as its user: a study from somewhere must not choose one."""
    text = (folder / "study.toml").read_text()
    (folder / "dask.toml").write_text(f'{text}\n[execution]\nexecutor = "dask"\nscheduler = "tcp://127.0.0.1:9"\n')
    monkeypatch.chdir(folder)
    assert main(["simulate", "dask.toml", "--cores", "1"]) == 1
    assert "names a Dask scheduler, tcp://127.0.0.1:9" in (said := capsys.readouterr().err)
    assert "if it is yours, add --allow-scheduler" in said
    with pytest.raises(SystemExit):
        main(["run", "study.toml", "--cores", "0"])
    assert "'0' was given; expected a whole number above 0, such as 2" in capsys.readouterr().err


def test_status_lets_nothing_of_a_file_command_the_terminal(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps({"verdict": "\x1b]0;pass\x07pass"}))
    assert main(["status", str(tmp_path)]) == 0
    assert "\x1b" not in (said := capsys.readouterr().out)
    assert "?]0;pass?pass" in said
