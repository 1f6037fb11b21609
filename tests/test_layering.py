"""The architecture as a test: who may import whom stands in one table of docs/architecture.md."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("jobs", "tune_spaces")
"""Folders of code beside rayseg's."""
MAX_LINES, LONG_LINES, MAX_LONG, MAX_SHELL_LINES = 400, 300, 12, 1800
LONG_FILES: dict[str, str] = {}


def read_table(page):
    """Part to (parts of rayseg, own modules, third parties), each a set of names."""
    text = page.read_text().partition("<!-- imports -->\n")[2].partition("<!-- /imports -->")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    return {part: [set(re.findall(r"\w+", cell)) for cell in cells] for part, *cells in rows}


def imported_names(path, package):
    """Full names of all modules that a file imports, at whatever depth of the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_granted(name, part, own, grants):
    """Whether a module of a part may import what has that full name."""
    from_rayseg, inside, third_party = grants
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names:
        return True
    if top != "rayseg":
        return top in third_party
    if not rest or rest[0] != part:
        return bool(rest) and rest[0] in from_rayseg
    return own == "__init__" or "any" in inside or not inside.isdisjoint(rest[1:])


def violations(root, table):
    """What is imported against the table, as ``file imports name``."""
    found = []
    files = [
        *root.glob("rayseg/**/*.py"),
        *(one for name in BESIDE for one in root.glob(f"{name}/*.py")),
    ]
    for path in sorted(files):
        place = path.relative_to(root)
        part = place.parts[0] if place.parts[0] in BESIDE else place.with_suffix("").parts[1]
        package = place.parts[:-1]
        if part not in table:
            found.append(f"{place} belongs to no part of the table")
            continue
        grants = table.get(part, [set()] * 3)
        found += [
            f"{place} imports {name}"
            for name in imported_names(path, package)
            if not is_granted(name, part, path.stem, grants)
        ]
    return found


@pytest.fixture(scope="module")
def table():
    return read_table(ROOT / "docs/architecture.md")


def test_every_import_is_granted_by_the_table(table):
    assert violations(ROOT, table) == []


def test_every_part_of_the_table_is_there(table):
    inside = (ROOT / "rayseg").iterdir()
    parts = {path.stem for path in inside if path.is_dir() or path.suffix == ".py"}
    assert set(table) - set(BESIDE) == parts - {"__pycache__"}


def test_a_part_is_granted_only_parts_above_it(table):
    order = list(table)
    for part, (from_rayseg, _, _) in table.items():
        assert from_rayseg <= set(order[: order.index(part)]), part


def test_only_on_ray_is_granted_ray(table):
    granted = [part for part, (_, _, third_party) in table.items() if "ray" in third_party]
    assert granted == ["tune_spaces", "on_ray"]


@pytest.mark.parametrize(
    ("file", "planted", "name"),
    [
        ("rayseg/stages/seeds.py", "import ray", "ray"),
        ("rayseg/stages/seeds.py", "def f():\n    import ray.data", "ray.data"),
        ("rayseg/attribution/classes/cam.py", "from rayseg import store", "rayseg.store"),
        ("rayseg/attribution/classes/cam.py", "from ... import on_ray", "rayseg.on_ray"),
        ("rayseg/attribution/classes/gradcam.py", "from .ficklenet import FickleNet", "FickleNet"),
        ("rayseg/records/boxes.py", "if True:\n    import torch", "torch"),
        ("rayseg/__init__.py", "import rayseg.stages", "rayseg.stages"),
        ("rayseg/store/folder.py", "import requests", "requests"),
        ("jobs/run.py", "from rayseg.on_ray import jobs", "rayseg.on_ray.jobs"),
        ("tune_spaces/rib.py", "from rayseg.attribution import RIB", "rayseg.attribution.RIB"),
        ("tune_spaces/rib.py", "import torch", "torch"),
    ],
)
def test_a_planted_import_is_found(tmp_path, table, file, planted, name):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{(ROOT / file).read_text()}\n{planted}\n")
    found = violations(tmp_path, table)
    assert len(found) == 1
    assert found[0].startswith(f"{file} imports ")
    assert found[0].endswith(name)


def test_a_new_part_must_be_entered_in_the_table(tmp_path, table):
    (tmp_path / "rayseg").mkdir()
    (tmp_path / "rayseg" / "tricks.py").write_text("")
    assert violations(tmp_path, table) == ["rayseg/tricks.py belongs to no part of the table"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("rayseg", {"torch", "ray", "numpy", "pyarrow", "rayseg.api"}),
        ("rayseg.api", {"torch", "ray"}),
        ("rayseg.config", {"torch"}),
        ("rayseg.cli", {"torch", "ray"}),
        ("rayseg.steps.preparing, rayseg.steps.exporting, rayseg.config.borders", {"torch", "ray"}),
        ("rayseg.steps.status", {"torch", "ray"}),
        ("rayseg.steps.viewing", {"torch", "ray", "matplotlib"}),
        ("rayseg.steps.recipe", {"ray"}),
        ("rayseg.plain", {"ray"}),
        ("rayseg.report", {"ray"}),
        ("rayseg.steps.seeds", {"sklearn", "skimage.graph", "torch._dynamo"}),
    ],
)
def test_a_fresh_process_does_not_load_what_it_need_not(module, absent):
    code = f"import sys, {module}; print(*{absent!r} & sys.modules.keys())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_files_are_read_in_one_sitting():
    files = [*(ROOT / "rayseg").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert [name for name, lines in lengths.items() if lines > MAX_LINES] == []
    assert len([name for name, lines in lengths.items() if lines > LONG_LINES]) <= MAX_LONG


def test_the_shell_of_ray_is_thin():
    shell = (ROOT / "rayseg/on_ray").glob("*.py")
    assert sum(len(path.read_text().splitlines()) for path in shell) <= MAX_SHELL_LINES


def test_functions_are_short():
    trees = (ast.parse(path.read_text()) for path in (ROOT / "rayseg").rglob("*.py"))
    lengths = [
        body_lines(node) for tree in trees for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]  # fmt: skip
    median, ninth = (statistics.quantiles(lengths, n=10)[place] for place in (4, 8))
    assert (median <= 8, ninth <= 24) == (True, True), (median, ninth)


def body_lines(function):
    """Lines of a function without its signature and docstring."""
    body = function.body[bool(ast.get_docstring(function)) :] or function.body
    return body[-1].end_lineno - body[0].lineno + 1


def test_files_of_a_method_name_it_and_hardly_others():
    named = [path for path in (ROOT / "rayseg").rglob("*.py") if "ficklenet" in path.read_text()]
    assert len(named) <= 7


def test_no_file_is_named_after_nothing():
    names = {path.stem for path in (ROOT / "rayseg").rglob("*.py")}
    assert not names & {"utils", "util", "common", "helpers", "misc"}
