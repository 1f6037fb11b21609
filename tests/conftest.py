"""Fixtures that several parts share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; a test that asks for it carries the marker data."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RAYSEG_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real images not found at {folder}: set RAYSEG_DATA")
    return folder
