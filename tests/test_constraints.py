"""The lock file of tested versions against what pyproject.toml asks for."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]


def locked():
    """Versions by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_line_is_a_name_and_a_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.+!-]+", line)]
    assert wrong == []


@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_what_is_asked_for_admits_the_version_that_is_locked(needed):
    assert needed.specifier.contains(locked()[canonicalize_name(needed.name)])


@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_what_is_asked_for_ends_somewhere(needed):
    """A new major version changes what we rely on."""
    assert any(one.operator in ("<", "==", "~=") for one in needed.specifier)


def test_the_file_says_how_it_is_renewed_and_make_knows():
    assert "make lock" in (ROOT / "constraints.txt").read_text()
    subprocess.run(["make", "-n", "lock"], cwd=ROOT, check=True, capture_output=True)
