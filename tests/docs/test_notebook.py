"""docs/notebook.ipynb runs as it stands, and what it shows is what its runs certify."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from data.samples import SampleSet
from scripts.verify import check_claims, check_files
from tests.command import HANGS, ROOT

PAGE = ROOT / "docs" / "notebook.ipynb"
OWN = "class ClassMeans"


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """With its outputs, in a folder of its own; and where its runs are. After it, its method has another default."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "docs").mkdir()
    notebook: Any = nbformat.read(PAGE, as_version=4)
    (own,) = (cell.source for cell in code(notebook) if OWN in cell.source)
    assert "spread: float = 0.2" in own
    changed = own.replace("spread: float = 0.2", "spread: float = 0.05")
    for source in (changed, 'print(compose(["method=class_means"]).method.spread)'):
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(name, str(folder / name))
        place = {"metadata": {"path": str(folder / "docs")}}
        NotebookClient(notebook, timeout=HANGS, kernel_name="python3", resources=place).execute()
    return notebook, folder / "runs" / "notebook"


@pytest.mark.end_to_end
def test_its_releases_are_private_and_it_shows_what_they_certify(executed):
    notebook, runs = executed
    shown = "".join(printed(cell) for cell in code(notebook))
    spent = [float(number) for number in re.findall(r"ε = ([0-9.]+)", shown)]
    releases = [path / "release" for name in ("pe", "class_means-*") for path in runs.glob(name)]
    assert len(releases) == len(spent) == 2
    for release, epsilon in zip(releases, spent, strict=True):
        document = json.loads((release / "privacy.json").read_text())
        assert document["epsilon"] == epsilon
        assert 9 < document["epsilon"] <= 10
        assert all(found.holds is not False for found in (*check_files(release, document), *check_claims(document)))
        assert SampleSet.load(release / "samples.npz").images.shape == (300, 8, 8, 1)
    assert "class_means.sums" in shown
    assert [pictures(cell) for cell in code(notebook) if pictures(cell)] == [1, 1, 1]  # samples, a curve, samples


@pytest.mark.end_to_end
def test_a_method_of_a_cell_that_is_run_again_is_the_new_one(executed):
    notebook, _ = executed
    assert printed(code(notebook)[-1]) == "0.05\n"


def test_its_method_is_the_example_of_the_page_on_extending():
    (example,) = re.findall(r"```python\n# class_means\.py\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    assert [cell.source for cell in code(nbformat.read(PAGE, as_version=4)) if OWN in cell.source] == [example.strip()]


def test_its_outputs_are_small_and_name_no_place_of_a_machine():
    assert PAGE.stat().st_size < 200_000
    told = [line for cell in code(nbformat.read(PAGE, as_version=4)) for line in json.dumps(cell.outputs, indent=0).splitlines()]
    assert told
    assert [line for line in told if "image/png" not in line and re.search(r"/(home|root|tmp|work|Users|usr|opt)/", line)] == []
