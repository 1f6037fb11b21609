"""Starting or joining Ray, and refusing what would hang there."""

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from ray._private import utils
from ray._private import worker as ray_worker
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayseg.config import Compute
from rayseg.on_ray.access import OwnPaths, join, private
from rayseg.on_ray.watch import watched
from rayseg.steps.machine import count_cores
from rayseg.store import Folder

STARTS = 5
"""Times that Ray is started on this machine before it is given up."""


@contextmanager
def session(address: str = "", run: str = "") -> Iterator[None]:
    """Ray for the length of a job: the cluster at an address, or one of this machine's cores.

    Args:
        address: of a cluster; empty takes RAY_ADDRESS.
        run: folder that all nodes must share; empty asks nothing.

    Raises:
        ConnectionError: there is no cluster at the address, or it does not let us in.
        ValueError: a node does not see the run's folder.
    """
    # Ray's core prints an error line for every pool that may restart (ray#53727)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray doubles its wait after each kill for memory, up to hours; the watch gives up before
    os.environ.setdefault("RAY_task_oom_retry_delay_base_ms", "0")
    # a page of Ray's own where one of its helpers is lost, which costs a job nothing
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if ray.is_initialized():
        _quieten()
        check_shared(run)
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS", "")
    with ExitStack() as opened:
        _open(address, opened)
        _quieten()
        with watched():
            check_shared(run)
            yield


def _open(address: str, opened: ExitStack) -> None:
    """Starts or joins Ray; what must be undone goes to the stack."""
    if address in ("", "local"):
        # one core more than there are, so that actors on every core leave room for a task
        local = {"num_cpus": count_cores() + 1, "include_dashboard": False}
        where = opened.enter_context(private()) | local | {"job_config": OwnPaths()}
        opened.callback(ray.shutdown)
        _start(where)
        return
    opened.callback(ray.shutdown)
    try:
        _knock(address)
        join(address, partial(_enter, address), _is_refusal)
    except AuthenticationError as error:
        raise ConnectionError(
            f"the cluster at {address} needs a token: set RAY_AUTH_MODE=token and "
            f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH ({_first(error)})"
        ) from None
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {_first(error)}") from None


def _enter(address: str) -> None:
    """Joins a cluster."""
    if address.startswith("ray://"):
        _start({"address": address})  # a client's job has no current folder in Ray's eyes
        return
    if ":" in address:  # asked before, since Ray tries for 20 seconds what is refused at once
        with _silent_stderr():
            GcsClient(address=address).internal_kv_get(b"session_name", b"session", timeout=30)
    _start({"address": address, "job_config": OwnPaths()})


def _is_refusal(error: Exception) -> bool:
    """Whether a cluster asks for a token; to Ray's client it just does not answer."""
    return isinstance(error, AuthenticationError) or "client connection timeout" in str(error)


_TOO_SLOW = ("timed out during startup", "Timed out waiting for file")  # a port's, of its own


def _start(where: dict[str, Any]) -> None:
    """Starts or joins Ray; on a loaded machine its own 30 seconds for the start can pass.

    Raises:
        ConnectionError: they passed each time.
    """
    for _ in range(STARTS):
        try:
            with _silent_stderr(), _signals_kept():
                ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
                return
        except Exception as error:
            if not any(text in str(error) for text in _TOO_SLOW):
                raise
            ray.shutdown()
    raise ConnectionError(
        f"Ray did not start on this machine in {STARTS} tries of 30 s; is it overloaded? "
        "`--engine plain` does without"
    )


def task_slots() -> int:
    """Tasks of one CPU that run side by side."""
    cpus = int(ray.cluster_resources().get("CPU", 0))
    alone = sum(node["Alive"] for node in ray.nodes()) == 1  # then there is a CPU more than cores
    return max(min(cpus, count_cores()) if alone else cpus, 1)


def gpus_each(compute: Compute) -> float:
    """GPUs of an actor: as given, else one where the cluster has any.

    Raises:
        ValueError: the cluster has none, and may have some later.
    """
    if compute.num_gpus >= 0:
        return compute.num_gpus
    if ray.cluster_resources().get("GPU", 0):
        return 1.0
    if compute.grows:
        raise ValueError(
            "compute.num_gpus must be given, 0 for CPUs, on a cluster that grows and has no GPU yet"
        )
    return 0.0


def fitting(name: str, each: float) -> float:
    """Actors of the cluster that find CPUs or GPUs: none spans two nodes, no share two GPUs."""
    if not each:
        return float("inf")
    nodes = [node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"]]
    if name == "GPU" and each < 1:
        return sum(nodes) * int(1 / each + 1e-6)
    return sum(number // each for number in nodes)


def preflight(
    what: str, actors: int, cpus_each: float, gpus_each: float, grows: bool = False
) -> None:
    """Refuses a pool of actors that would wait without end for its resources.

    Actors start before tasks and keep what they hold, so that one CPU must stay free for the tasks
    that feed them. On a cluster that grows, what lacks may join.

    Raises:
        ValueError: the cluster has less than that.
    """
    if grows:
        return
    have = ray.cluster_resources()
    for name, each, need in (
        ("CPU", cpus_each, actors * cpus_each + 1),
        ("GPU", gpus_each, actors * gpus_each),
    ):
        if need > have.get(name, 0) or actors > fitting(name, each):
            raise ValueError(
                f"{what} needs {need:g} {name}s ({actors} actors, and a CPU for the tasks that "
                f"feed them), the cluster has {have.get(name, 0):g}; give --compute.actors fewer"
            )


def cluster_in_words() -> str:
    """What the cluster has."""
    nodes, have = [node for node in ray.nodes() if node["Alive"]], ray.cluster_resources()
    memory, store = (have.get(name, 0) / 1e9 for name in ("memory", "object_store_memory"))
    return (
        f"{len(nodes)} nodes, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs, "
        f"{memory:.0f} GB memory, {store:.1f} GB object store"
    )


def check_shared(run: str) -> None:
    """Refuses a folder that a node of the cluster does not see, whose rows would be lost.

    Raises:
        ValueError: the text names the node.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    folder = Folder(run)
    if not run or "://" in folder.location or len(nodes) < 2:
        return
    probe = f".probe-{uuid.uuid4().hex}"
    folder.write(probe, b"")
    try:
        path = folder.path(probe)
        asked = {
            node["NodeManagerAddress"]: _sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ).remote(path, node["NodeID"])
            for node in nodes
        }
        for host, answer in asked.items():
            if not _get_seen(answer):
                raise ValueError(
                    f"run must be a folder that all machines of the cluster share, or a URI such "
                    f"as s3://bucket/run, got {run}, which {host} does not see"
                )
    finally:
        folder.delete(probe)


def _get_seen(answer: ray.ObjectRef[bool]) -> bool:
    """What a node says; True of one that has died since, on which no rows can be lost."""
    try:
        return ray.get(answer)
    except RayError:
        return True


@ray.remote(num_cpus=0, max_retries=0)
def _sees(path: str, node: str) -> bool:
    """Whether a file is there; True on another node, since the asked one is gone."""
    return ray.get_runtime_context().get_node_id() != node or Path(path).exists()


def _knock(address: str) -> None:
    """Asks whether anybody is there at all, since Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps Ray's core from announcing its log level, which no setting prevents."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps Ray from what it does at SIGTERM, which is to end without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)

    def keep(handler: object) -> None:
        signal.signal(signal.SIGTERM, kept)  # again, since Ray's core has one of its own too

    with mock.patch.object(utils, "set_sigterm_handler", keep):
        yield
    keep(None)


def _quieten() -> None:
    # each death of a process is a paragraph of it, and what one means is said in our own words
    ray_worker.print_to_stdstream = lambda data, ignore_prefix: None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts images and says the time left
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we report what fails, once
    logging.getLogger("ray.train").setLevel(logging.ERROR)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
