"""The notebooks are run, cell by cell, and kept without what they show.

Their cells are executed as Python here: neither nbformat nor a kernel is needed for it.
"""

import ast
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def execute(path):
    """Runs all cells in one namespace.

    Returns:
        The value that each cell ends with; None of one that ends with a statement.
    """
    space, shown = {"__name__": "__main__"}, []
    for number, cell in enumerate(code_cells(path)):
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        name = f"{path.name}, cell {number}"
        exec(compile(ast.Module(body, []), name, "exec"), space)
        shown.append(
            eval(compile(ast.Expression(last.value), name, "eval"), space) if last else None
        )
    return shown


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["label_pictures", "look_at_a_run"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    for cell in code_cells(path):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert json.loads(path.read_text())["nbformat"] == 4
    assert all(cell["source"] for cell in json.loads(path.read_text())["cells"])


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Several threads wait for each other longer than they work on a busy machine."""
    monkeypatch.setattr("rayseg.plain.count_cores", lambda: 1)


@pytest.mark.slow
def test_pictures_are_labelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tags, labels, shares, overlay, maps, failed, shape = execute(FOLDER / "label_pictures.ipynb")
    assert len(tags) == 3
    assert len(labels) == 12
    assert sum(shares.values()) == 64 * 64
    assert overlay.size == (64, 64)
    assert {size_hw for size_hw, _ in maps.values()} == {(64, 64)}
    assert (failed, shape) == ({}, (64, 64))


@pytest.mark.slow
def test_a_run_is_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    labels, classes, image, said, overlay, maps, scores, last = execute(
        FOLDER / "look_at_a_run.ipynb"
    )
    assert len(labels) == 12
    assert classes == ("bird", "boat", "bus", "cat", "dog")
    assert image[1] == (64, 64)
    assert said.startswith("12 masks; most undecided pixels: image ")
    assert overlay.size == (64, 64)
    assert {*maps.values()} == {(64, 64)}
    assert {"seeds/cam", "masks/cam+label_crf", "masks/gradcam+label_crf"} <= {*scores}
    assert last is None
    assert "the run has cam+label_crf, gradcam+label_crf; did you mean" in capsys.readouterr().out
