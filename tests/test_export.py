"""Draws in the formats of other programs: every bit, every name and every failed row arrives, or nothing does."""

import csv
import json
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.draws import export as module
from vbinfer.draws.draws import Draws

pd, xr = pytest.importorskip("pandas"), pytest.importorskip("xarray")

PRIOR = vb.Prior({"coupling.G": dist.Uniform(1.0, 3.0), "model.eta": dist.Normal(-2.0, 0.5).expand([2, 3])})
NAMES = ("fc.mean", "fcd ä,\"1\"", "x[2]")  # fmt: skip
SUFFIXES = (".nc", ".zarr", ".parquet", ".csv")


def simulator(theta, key):
    x = jnp.stack([theta["coupling.G"], theta["model.eta"].sum(), 1e-3 * jax.random.normal(key)])
    return jnp.where(theta["coupling.G"] > 2.7, jnp.array([jnp.nan, jnp.inf, 1.0]), x)


def made(n=50, dtype=np.float32, **extra):
    rng = np.random.default_rng(3)
    theta = {
        "coupling.G": rng.normal(1.7, 3.0, n).astype(dtype),
        "model.eta": rng.normal(-4, 2, (n, 2, 3)).astype(dtype),
    }
    x = (10.0 ** rng.uniform(-30, 30, (n, 3)) * rng.choice([-1, 1], (n, 3))).astype(dtype)
    x[3] = [np.nan, np.inf, -np.inf]
    x[4] = [-0.0, np.finfo(dtype).tiny, np.finfo(dtype).max]
    draws = Draws.from_arrays(theta, x, NAMES)
    info = {"seconds": 1.5, "key": [0, 3], "versions": {"vbinfer": "0.1.0"}, "draws_per_second": None}
    given = {"round": np.arange(n, dtype=np.int32) % 3, "log_q": rng.normal(size=n), "info": info, **extra}
    return Draws(draws.theta, draws.x, draws.names, draws.valid, given["round"], given["log_q"], given["info"])


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8).tolist()


def check(found, draws):
    """`found`: columns by name."""
    flat = {f"model.eta[{i},{j}]": draws.theta["model.eta"][:, i, j] for i in range(2) for j in range(3)}
    flat["coupling.G"] = draws.theta["coupling.G"]
    flat |= {name: draws.x[:, i] for i, name in enumerate(NAMES)} | {"valid": draws.valid, "round": draws.round}
    if draws.log_q is not None:
        flat["log_q"] = draws.log_q
    assert set(found) == {"draw", *flat}
    for name, value in flat.items():
        assert found[name].dtype == value.dtype
        assert bits(found[name]) == bits(value), name


def table(path, dtype=np.float32):
    """The columns at `path`; text has no types, and is read as those that it was written from."""
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return {name: frame[name].to_numpy() for name in frame.columns}
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    found = {name: np.array([row[i] for row in rows]) for i, name in enumerate(head)}
    kinds = {"round": np.int32, "log_q": np.float64, "draw": np.int64}
    found = {name: v == "True" if name == "valid" else v.astype(kinds.get(name, dtype)) for name, v in found.items()}
    assert set(pd.read_csv(path).columns) == set(head)
    return found


def opened(path):
    with xr.open_dataset(path, engine="h5netcdf") if path.suffix == ".nc" else xr.open_zarr(path) as found:
        return found.load()


def check_labelled(found, draws):
    assert bits(found["coupling.G"].values) == bits(draws.theta["coupling.G"])
    assert bits(found["model.eta"].values) == bits(draws.theta["model.eta"])
    assert found["model.eta"].dims == ("draw", "model.eta_dim_0", "model.eta_dim_1")
    assert found["x"].dims == ("draw", "feature")
    for name in ("x", "valid", "round"):
        assert found[name].dtype == getattr(draws, name).dtype
        assert bits(found[name].values) == bits(getattr(draws, name))
    assert tuple(found["feature"].values) == draws.names
    assert json.loads(found.attrs["info"]) == draws.info
    assert json.loads(found.attrs["theta"]) == {"coupling.G": "coupling.G", "model.eta": "model.eta"}


def test_to_xarray_labels_every_axis():
    draws = made()
    found = draws.to_xarray()
    check_labelled(found, draws)
    assert bits(found["log_q"].values) == bits(draws.log_q)
    assert found["draw"].values.tolist() == list(range(50))
    mean = found["x"].sel(feature="fc.mean").where(found["valid"], drop=True).mean()
    assert float(mean) == pytest.approx(draws.usable()[1][:, 0].mean(), rel=1e-5)
    assert "log_q" not in made(log_q=None).to_xarray()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_bit_arrives(tmp_path, suffix, dtype):
    draws, path = made(dtype=dtype), tmp_path / f"draws{suffix}"
    assert vb.stores.export(draws, path) == path
    if suffix in (".nc", ".zarr"):
        check_labelled(opened(path), draws)
        assert bits(opened(path)["log_q"].values) == bits(draws.log_q)
    else:
        found = table(path, dtype)
        check(found, draws)
        assert found["draw"].tolist() == list(range(50))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_draws_in_many_blocks_are_the_same_file_as_in_one(tmp_path, suffix, monkeypatch):
    draws = made(n=53, log_q=None)
    vb.stores.export(draws, tmp_path / f"one{suffix}")
    monkeypatch.setattr(module, "_BLOCK", 10 * 40)
    vb.stores.export(draws, tmp_path / f"many{suffix}")
    one, many = tmp_path / f"one{suffix}", tmp_path / f"many{suffix}"
    if suffix in (".nc", ".zarr"):
        xr.testing.assert_identical(opened(one), opened(many))
        check_labelled(opened(many), draws)
    else:
        check(table(one), draws)
        check(table(many), draws)
        assert table(many)["draw"].tolist() == list(range(53))


def filled(folder, n=192):
    return vb.sample_prior_predictive(
        PRIOR, simulator, n=n, key=jax.random.key(1), store=folder, batch_size=64, progress=False
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_store_is_exported_shard_by_shard_with_the_numbers_of_its_draws(tmp_path, suffix, monkeypatch):
    draws = filled(tmp_path / "run" / "store")
    assert 0 < draws.valid.sum() < 192
    (tmp_path / "run" / "store" / "shard-000001.npz").unlink()  # another job has not come to it yet
    monkeypatch.setattr(module, "_BLOCK", 1)
    path = vb.stores.export(str(tmp_path / "run"), tmp_path / f"draws{suffix}")
    there = np.r_[0:64, 128:192]
    if suffix in (".nc", ".zarr"):
        found = opened(path)
        number, x, valid = (found[name].values for name in ("draw", "x", "valid"))
        eta = found["model.eta"].values
        assert json.loads(found.attrs["info"])["key"] == [0, 1]
    else:
        found = table(path)
        number, valid = found["draw"], found["valid"]
        x = np.stack([found[f"x[{i}]"] for i in range(3)], axis=1)
        eta = np.stack([found[f"model.eta[{i},{j}]"] for i in range(2) for j in range(3)], 1).reshape(-1, 2, 3)
    assert number.tolist() == there.tolist()
    assert bits(x.astype(draws.x.dtype)) == bits(draws.x[there])
    assert bits(eta.astype(draws.x.dtype)) == bits(draws.theta["model.eta"][there])
    assert valid.tolist() == draws.valid[there].tolist()


def test_a_saved_file_is_exported_and_provenance_is_in_the_metadata_of_a_parquet_file(tmp_path):
    draws = made()
    draws.save(tmp_path / "draws.npz")
    path = vb.stores.export(tmp_path / "draws.npz", tmp_path / "deep" / "draws.parquet")
    check(table(path), draws)
    parquet = pytest.importorskip("pyarrow.parquet")
    meta = json.loads(parquet.read_schema(path).metadata[b"vbinfer"])
    assert meta["features"] == list(NAMES)
    assert json.loads(meta["info"]) == draws.info


def test_parameters_that_are_called_like_something_else_keep_their_values(tmp_path):
    rng = np.random.default_rng(0)
    theta = {"x": rng.normal(size=(5, 2)), "valid": rng.normal(size=5), "fc": rng.normal(size=5)}
    draws = Draws.from_arrays(theta, rng.normal(size=(5, 3)), ("fc", "x[0]", "round"))
    vb.stores.export(draws, tmp_path / "draws.nc")
    found = opened(tmp_path / "draws.nc")
    assert json.loads(found.attrs["theta"]) == {"x": "theta.x", "valid": "theta.valid", "fc": "fc"}
    assert bits(found["theta.x"].values) == bits(theta["x"])
    assert bits(found["x"].values) == bits(draws.x)
    vb.stores.export(draws, tmp_path / "draws.parquet")
    found = table(tmp_path / "draws.parquet")
    other = {"theta.x[0]", "x[1]", "theta.valid", "theta.fc", "x.fc", "x.x[0]", "x.round"}
    assert set(found) == {"draw", "valid", "round", *other}
    assert bits(found["theta.x[0]"]) == bits(theta["x"][:, 0])
    assert bits(found["x.x[0]"]) == bits(draws.x[:, 1])
    same = Draws.from_arrays({"g": np.ones(2)}, np.ones((2, 2)), ("fc", "fc"))
    with pytest.raises(ValueError, match=r"occur twice, 'fc' first; write \.nc or \.zarr instead"):
        vb.stores.export(same, tmp_path / "same.csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path, suffix):
    path, first, second = tmp_path / f"draws{suffix}", made(n=20), made(n=30)
    vb.stores.export(first, path)
    with pytest.raises(ValueError, match=r"is there already; give another name, or overwrite=True"):
        vb.stores.export(second, path)
    rows = lambda: len(opened(path)["draw"]) if suffix in (".nc", ".zarr") else len(table(path)["draw"])  # noqa: E731
    assert rows() == 20
    vb.stores.export(second, path, overwrite=True)
    assert rows() == 30
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_full_half_way_leaves_what_was_there(tmp_path, suffix, monkeypatch):
    """The third block cannot be had; the old file stays as it is, and nothing else is left."""
    path = tmp_path / f"draws{suffix}"
    vb.stores.export(made(n=20), path)
    before = {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()}
    whole = list(module._slices(made(n=30).to_xarray()))

    def failing(source):
        yield from whole
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_blocks", failing)
    with pytest.raises(OSError, match="No space left"):
        vb.stores.export(made(n=30), path, overwrite=True)
    assert {entry: entry.read_bytes() for entry in tmp_path.rglob("*") if entry.is_file()} == before


def test_a_folder_that_is_no_export_is_never_replaced(tmp_path):
    (tmp_path / "data.zarr").mkdir()
    (tmp_path / "data.zarr" / "mine.txt").write_text("kept")
    (tmp_path / "data.csv").mkdir()
    for name in ("data.zarr", "data.csv"):
        with pytest.raises(ValueError, match=r"is a folder that is no \.\w+ export; it is not replaced"):
            vb.stores.export(made(), tmp_path / name, overwrite=True)
    assert (tmp_path / "data.zarr" / "mine.txt").read_text() == "kept"


def test_bad_input_is_named_with_what_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"the suffix '\.xlsx'; draws are exported to \.nc, \.zarr, \.parquet, \.csv"):
        vb.stores.export(made(), tmp_path / "draws.xlsx")
    with pytest.raises(TypeError, match=r"a Posterior was given.*write posterior\.to_inference_data\(\)"):
        vb.stores.export(vb.Posterior({"g": np.ones((1, 5))}), tmp_path / "draws.nc")
    with pytest.raises(ValueError, match=r"holds no manifest\.json; give the folder of a store"):
        vb.stores.export(tmp_path, tmp_path / "draws.nc")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        vb.stores.export(tmp_path / "nothing", tmp_path / "draws.nc")
    vb.Posterior({"g": np.ones((1, 5))}).save(tmp_path / "posterior.npz")
    with pytest.raises(ValueError, match=r"holds a Posterior; expected draws"):
        vb.stores.export(tmp_path / "posterior.npz", tmp_path / "draws.nc")
    filled(tmp_path / "s", n=64)
    (tmp_path / "s" / "shard-000000.npz").unlink()
    with pytest.raises(ValueError, match="holds no finished draws yet"):
        vb.stores.export(tmp_path / "s", tmp_path / "draws.nc")
    assert not (tmp_path / "draws.nc").exists()


def test_a_damaged_shard_stops_the_export(tmp_path):
    filled(tmp_path / "s")
    path = tmp_path / "s" / "shard-000002.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"shard-000002"):
        vb.stores.export(tmp_path / "s", tmp_path / "draws.csv")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s"]


@pytest.mark.parametrize(("suffix", "package"), [(".zarr", "zarr"), (".parquet", "pyarrow")])
def test_a_missing_package_says_how_to_get_it(tmp_path, suffix, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{suffix} needs the package {package}.*pip install vbinfer\[export\]"):
        vb.stores.export(made(), tmp_path / f"draws{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_format_warns(tmp_path, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vb.stores.export(made(), tmp_path / f"draws{suffix}")


MEMORY = """
import resource, sys, numpy as np
from vbinfer.draws import export as module
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
module._need("pyarrow.parquet", ""), module._need("pandas", "")
module.export(sys.argv[1], sys.argv[2])
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_memory_does_not_grow_with_the_store(tmp_path, suffix):
    """Shards of 8 MB: a store of 16 and one of 64 (half a GB) take the same memory, to one block."""
    from vbinfer.draws.store import DRAWS, Store
    from vbinfer.io.folder import write_head

    peaks = []
    for shards in (16, 64):
        folder = tmp_path / str(shards)
        folder.mkdir()
        study = {"batch_size": 1024, "theta": {"g": []}, "features": None, "simulator": "x", "key": {"words": [0, 1]}}
        write_head(folder / "manifest.json", DRAWS, study)
        store = Store.open(folder, study)
        for shard in range(shards):
            store.write(shard, {"theta/g": np.ones(1024, np.float32), "x": np.full((1024, 2000), shard, np.float32)})
        run = [sys.executable, "-c", MEMORY, str(folder), str(tmp_path / f"{shards}{suffix}")]
        done = subprocess.run(run, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 100_000  # kB; the larger store has 400 MB more
