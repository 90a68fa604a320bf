"""Every notebook runs from top to bottom, in a fast setting, and its closing checks hold."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
FAST = {"01_posterior_from_fmri.ipynb": "n_draws = 256\nt1 = 240e3\nn_checks = 20\nseed = 0"}


def test_each_notebook_has_a_fast_setting():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(FAST)


@pytest.mark.parametrize("name", sorted(FAST))
def test_notebook(name, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    settings = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(settings) == 1
    assert {line.split("=")[0].strip() for line in FAST[name].splitlines()} == {
        line.split("=")[0].strip() for line in settings[0].source.splitlines()
    }
    settings[0].source = FAST[name]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "report.html").stat().st_size > 100_000
