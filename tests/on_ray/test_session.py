"""Joining Ray and refusing what would hang there."""

import os
import signal
import subprocess
import sys

import pytest
import ray
from ray._private import utils

from rayseg.config import Compute
from rayseg.on_ray import access
from rayseg.on_ray.engine import RayEngine
from rayseg.on_ray.session import STARTS, _signals_kept, _start, gpus_each, preflight, session
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
        "print(os.environ.get('RAY_AUTH_MODE'))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept
    ).stdout.splitlines()
    assert said[0].startswith("no Ray cluster answers at 127.0.0.1:1: ")
    assert said[1:] == ["None"]  # nothing is switched off on the way


@pytest.mark.usefixtures("cluster")
def test_ray_takes_nobody_s_handler_of_sigterm():
    own = signal.getsignal(signal.SIGTERM)
    with _signals_kept():
        utils.set_sigterm_handler(lambda number, frame: None)
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray's core has one of its own
    assert signal.getsignal(signal.SIGTERM) is own


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


@pytest.fixture
def asked(monkeypatch):
    """The modes in which a cluster was spoken to; nothing is set of tokens."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(access, "_reread", lambda: None)
    access.say.cache_clear()
    return []


def has_token(monkeypatch, answer):
    loader = type("Loader", (), {"has_token": lambda self, ignore_auth_mode: answer})()
    monkeypatch.setattr(
        access, "AuthenticationTokenLoader", type("L", (), {"instance": lambda: loader})
    )


def speak(asked, needs_token):
    def act():
        asked.append(os.environ.get("RAY_AUTH_MODE"))
        if needs_token and asked[-1] != "token":
            raise PermissionError("401")
        return "in"

    return access.join("head:1", act, lambda error: "401" in str(error))


def test_a_cluster_that_asks_for_a_token_is_shown_the_user_s(asked, monkeypatch, capsys):
    has_token(monkeypatch, True)
    assert speak(asked, needs_token=True) == "in"
    assert asked == [None, "token"]
    assert capsys.readouterr().out == ""


def test_a_cluster_that_asks_for_none_is_shown_none_which_is_said_once(asked, monkeypatch, capsys):
    has_token(monkeypatch, True)
    assert speak(asked, needs_token=False) == speak(asked, needs_token=False) == "in"
    assert asked == [None, None]
    (line,) = capsys.readouterr().out.splitlines()
    assert "head:1 asks for no token" in line


def test_without_a_token_a_cluster_that_asks_stays_closed(asked, monkeypatch):
    has_token(monkeypatch, False)
    with pytest.raises(PermissionError):
        speak(asked, needs_token=True)
    assert asked == [None]


def test_what_the_user_says_of_tokens_decides(asked, monkeypatch, capsys):
    has_token(monkeypatch, True)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(PermissionError):
        speak(asked, needs_token=True)
    assert asked == ["disabled"]
    with access.private():
        assert "RAY_AUTH_TOKEN" not in os.environ
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("rayseg: RAY_AUTH_MODE=disabled is set")


def test_a_session_s_token_and_settings_end_with_it(asked, monkeypatch):
    has_token(monkeypatch, False)
    before = dict(os.environ)
    with access.private():
        assert os.environ["RAY_AUTH_MODE"] == "token"
        first = os.environ["RAY_AUTH_TOKEN"]
    assert dict(os.environ) == before
    with access.private():
        assert os.environ["RAY_AUTH_TOKEN"] != first


def test_a_token_that_the_user_gives_is_taken(asked, monkeypatch):
    has_token(monkeypatch, True)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's")
    with access.private():
        assert os.environ["RAY_AUTH_TOKEN"] == "the user's"
        assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("why", ["The node timed out during startup", "Timed out waiting for file"])
def test_a_ray_that_starts_too_slowly_is_tried_again_and_then_named(why, monkeypatch):
    tries = []

    def start(**_):
        tries.append(why)
        raise RuntimeError(f"{why} of this session")

    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(ConnectionError, match=r"did not start .*--engine plain"):
        _start({})
    assert len(tries) == STARTS
