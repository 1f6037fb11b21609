"""A folder to store in."""

import pytest

from rayseg.store import Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "out"))
