"""Every notebook runs from top to bottom, and is kept without outputs."""

import json
from pathlib import Path

import emulator
import pytest

from gpunn import cuda

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def names(path):
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_notebook_is_kept_without_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs"), "".join(cell["source"])
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_notebook_runs(path, tmp_path, monkeypatch):
    if "cuda_kernel" in path.stem and not cuda.is_available() and emulator.missing():
        pytest.skip(f"there is no GPU, and no emulator: {emulator.missing()}")
    monkeypatch.setenv("GPUNN_SOURCE", str(ROOT))  # the emulator is there
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra 'notebooks'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="notebooks need the extra 'notebooks'")
    notebook = nbformat.read(path, 4)
    client = nbclient.NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    said = [o for c in notebook.cells for o in c.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in said), "a page shows pictures"
    assert not [o for o in said if o.output_type == "stream" and o.name == "stderr"
                and "Warning" in o.text]  # fmt: skip
