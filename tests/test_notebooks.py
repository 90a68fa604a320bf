"""Every notebook runs from top to bottom, in a fast setting, and its closing checks hold."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
DEMO = "01_posterior_from_fmri.ipynb"
FAST = {
    DEMO: "n_draws = 256\nt1 = 240e3\nn_checks = 20\nseed = 0",
    "02_neural_posterior.ipynb": "n_draws = 512\nn_test = 50\nt1 = 3e3\nseed = 0",
    "03_gradients_and_nuts.ipynb": "num_warmup = 200\nnum_samples = 300\nnum_chains = 2\nseed = 0",
    "04_choose_a_method.ipynb": "n_draws = 1_024\nnum_samples = 200\nseed = 0",
    "05_can_i_believe_it.ipynb": "n_draws = 1_024\nn_test = 128\nseed = 0",
    "06_calibration_study.ipynb": "n_draws = 1_024\nn_test = 128\nn_nuts = 50\nseed = 0",
    "07_large_runs.ipynb": "n_draws = 20_000\nn_network = 128\nseed = 0",
    "08_networks.ipynb": "n_draws = 256\nseed = 0",
    "09_a_neuron.ipynb": "n_draws = 1_024\nn_test = 50\nnum_samples = 200\nseed = 0",
    "10_spiking_network.ipynb": "n_draws = 384\nn_test = 64\nseed = 0",
    "16_spikes_and_mean_field.ipynb": "n_draws = 320\nn_test = 64\nseed = 0",
    "11_a_field.ipynb": "num_warmup = 200\nnum_samples = 200\nnum_chains = 2\nseed = 0",
    "12_explore.ipynb": "n_grid = 5\nt1 = 40e3\nseed = 0",
    "14_corrected_and_missing.ipynb": "n_draws = 2_048\nn_test = 100\nnum_samples = 1_000\nseed = 0",
    "15_a_cohort.ipynb": "n_draws = 2_048\nn_subjects = 24\nseed = 0",
    "13_connectome_prior.ipynb": "n_draws = 1_024\nn_test = 100\nseed = 0",
}


def test_each_notebook_has_a_fast_setting():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(FAST)


@pytest.mark.parametrize("name", sorted(set(FAST) - {DEMO}))
def test_notebooks_are_committed_as_they_ran_from_top_to_bottom(name):
    """Outputs are in, in order, without errors or warnings (the demo's are in docs/results.md)."""
    cells = [cell for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr"
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        assert not re.search(r"(^|[\s'\"])(/[\w.-]+){2,}", text), text


@pytest.mark.slow  # `make notebooks` runs them
@pytest.mark.parametrize("name", sorted(FAST))
def test_notebook(name, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    settings = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(settings) == 1
    assert {line.split("=")[0].strip() for line in FAST[name].splitlines()} == {
        line.split("=")[0].strip() for line in settings[0].source.splitlines()
    }
    settings[0].source = FAST[name]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    if name == DEMO:
        assert (tmp_path / "report.html").stat().st_size > 100_000
