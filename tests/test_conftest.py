"""What is skipped on a developer's machine fails in CI."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
ROOT = CONFTEST.parents[1]
TESTS = """
import pytest

def test_with_images(real_data): pass

def test_with_networks(): pytest.skip("no networks can be made here")

@pytest.mark.gpu
def test_with_a_gpu(): pytest.skip("no CUDA device")

@pytest.mark.xfail
def test_that_fails(): assert False

def test_that_passes(): pass
"""
pytest_plugins = ["pytester"]


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Runs tests of which three are skipped, and a file that asks for a package that is missing."""
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = gpu: needs a CUDA device")
    pytester.makepyfile(test_some=TESTS, test_other="import pytest; pytest.importorskip('nowhere')")
    monkeypatch.setenv("RAYSEG_DATA", "/nowhere")

    def run(no_skips):
        monkeypatch.setenv("RAYSEG_NO_SKIPS", no_skips)
        return pytester.runpytest_inprocess("--continue-on-collection-errors")

    return run


def test_a_skip_that_ci_allows_is_one_of_a_gpu(outcome):
    result = outcome("1")
    result.assert_outcomes(errors=2, failed=1, skipped=1, xfailed=1, passed=1)
    result.stdout.fnmatch_lines_random(
        [
            "*no skip of *test_with_images: real images not found at /nowhere: set RAYSEG_DATA",
            "*no skip of *test_with_networks: no networks can be made here",
            "*no skip of test_other.py: could not import 'nowhere'*",
        ]
    )


def test_skips_are_skips_elsewhere(outcome):
    outcome("").assert_outcomes(skipped=4, xfailed=1, passed=1)


def test_ci_allows_no_skips():
    assert "RAYSEG_NO_SKIPS=1 " in (ROOT / ".ci/run").read_text()


def test_files_with_slow_tests_come_first_and_stay_whole(pytester):
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers = slow: takes more than ten seconds")
    slow = "import pytest\ndef test_b(): pass\n@pytest.mark.slow\ndef test_a(): pass\n"
    pytester.makepyfile(test_1="def test_a(): pass", test_2=slow, test_3="def test_a(): pass")
    shown = pytester.runpytest_inprocess("--collect-only", "-q").outlines[:4]
    assert [line.split("::")[0] for line in shown] == [f"test_{n}.py" for n in (2, 2, 1, 3)]
    assert shown[0].endswith("test_b")
