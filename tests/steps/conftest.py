"""A run that several files look at, made once."""

import shutil
from dataclasses import replace

import pytest

from tests.steps.learned import make_learned


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """The configuration of a finished run whose refiners learn, and what it said; to be read."""
    return make_learned(tmp_path_factory.mktemp("learned"))


@pytest.fixture
def learned_copy(learned, tmp_path):
    """That run in a folder of its own, to be changed."""
    shutil.copytree(learned[0].run, tmp_path / "run")
    return replace(learned[0], run=str(tmp_path / "run"))
