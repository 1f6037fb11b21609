"""Joining Ray and refusing what would hang there."""

import subprocess
import sys

import pytest
import ray

from rayseg.config import Compute
from rayseg.on_ray.engine import RayEngine
from rayseg.on_ray.session import gpus_each, preflight, session
from rayseg.on_ray.watch import one_line_errors
from rayseg.steps.engine import Pool
from rayseg.steps.machine import threads_each

pytestmark = [pytest.mark.ray]
ENGINE, KEPT, TASKS = RayEngine(), Pool(list, keeps_network=True), Pool(list)


def test_an_address_with_nobody_there_is_a_one_line_error_and_ray_does_not_search_for_minutes():
    code = (
        "import os, ray\n"
        "from rayseg.on_ray.session import session\n"
        "ray.init = lambda *args, **settings: print('Ray searches')\n"
        "try:\n"
        "    with session('127.0.0.1:1'): pass\n"
        "except ConnectionError as error:\n"
        "    print(error)\n"
        "print(os.environ['RAY_AUTH_MODE'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[0].startswith("no Ray cluster answers at 127.0.0.1:1: ")
    assert said[1:] == ["disabled"]  # Ray's own default depends on what ran before


@pytest.mark.usefixtures("cluster")
def test_a_session_inside_another_leaves_it_running():
    with session():
        pass
    assert ray.is_initialized()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("actors", "cpus", "gpus", "said"),
    [
        (4, 1, 0, "needs 5 CPUs"),
        (1, 4, 0, "needs 5 CPUs"),
        (3, 0, 1, "needs 3 GPUs"),
        (1, 0, 2.5, "needs 2.5 GPUs"),
        (3, 0, 0.6, "needs 1.8 GPUs"),  # two GPUs hold one each
    ],
)
def test_what_would_hang_is_refused_in_one_line(actors, cpus, gpus, said):
    with pytest.raises(ValueError, match="seeds cam " + said) as caught:
        preflight("seeds cam", actors, cpus, gpus)
    assert "the cluster has" in str(caught.value)
    assert "--compute.actors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("actors", "cpus", "gpus"), [(3, 1, 0), (2, 0, 1), (4, 0, 0.5), (0, 1, 0)])
def test_what_fits_is_let_through(actors, cpus, gpus):
    preflight("seeds cam", actors, cpus, gpus)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("gpus", "fitting"), [(1, 2), (0.5, 4), (0.6, 2), (2, 1)])
def test_a_pool_on_gpus_takes_no_cpu_and_as_many_actors_as_fit(gpus, fitting):
    pool = ENGINE.crew(KEPT, Compute(num_gpus=gpus))
    assert (pool.cpus, pool.gpus, pool.actors) == (0, gpus, fitting)


@pytest.mark.usefixtures("cluster")
def test_a_pool_on_the_cpu_leaves_a_cpu_free():
    pool = ENGINE.crew(KEPT, Compute(threads=1, num_gpus=0))
    assert (pool.actors, pool.cpus) == (3, 1)
    preflight("seeds cam", pool.actors, pool.cpus, pool.gpus)


@pytest.mark.usefixtures("cluster")
def test_pools_take_rows_and_patience_from_the_configuration():
    compute = Compute(block_rows=3, stall_seconds=60)
    for pool in (TASKS, KEPT):
        crew = ENGINE.crew(pool, compute)
        assert (crew.rows, crew.stall_seconds) == (3, 60)


@pytest.mark.usefixtures("cluster")
def test_gpus_are_taken_where_there_are_any():
    assert gpus_each(Compute()) == 1
    assert gpus_each(Compute(num_gpus=0)) == 0
    assert gpus_each(Compute(num_gpus=0.25)) == 0.25


def test_threads_are_as_given_or_shared_by_the_actors(monkeypatch):
    monkeypatch.setattr("rayseg.steps.machine.count_cores", lambda: 8)
    assert threads_each(Compute(threads=3, actors=2)) == 3
    assert threads_each(Compute(actors=2)) == 4
    assert threads_each(Compute(actors=16)) == 1


def test_an_error_that_crossed_processes_keeps_its_cause_only():
    text = (
        "ray::task() (pid=1)\n  File x\nValueError: the cause\n\n"
        "The above exception was the direct cause of the following exception:\n\nray::x\nUDF failed"
    )
    error = ray.exceptions.RayError(text)
    expected = pytest.raises(ChildProcessError, match=r"^seeds failed: ValueError: the cause$")
    with expected as caught, one_line_errors("seeds"):
        raise error
    assert caught.value.__cause__ is error
