"""Fixtures that several parts share, and what may be skipped."""

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


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # by numbers of tests, which says nothing of minutes


def pytest_collection_modifyitems(items):
    """Files on Ray first, so that none of it runs beside the others; then those with slow tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.parent.name != "on_ray", item.path not in slow))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    may_lack = any(map(item.get_closest_marker, ("gpu", "browser")))  # a machine, no mistake
    return report if may_lack else _refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _refuse_skip((yield))


def _refuse_skip(report):
    """Fails what was skipped where $RAYSEG_NO_SKIPS is set, as .ci/run does; see the caller."""
    if os.environ.get("RAYSEG_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        report.outcome = "failed"
        report.longrepr = f"RAYSEG_NO_SKIPS allows no skip of {report.nodeid}: {reason}"
    return report
