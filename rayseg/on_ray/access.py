"""Who reaches Ray: that of this machine nobody else, that of a cluster who shows its token."""

import ipaddress
import os
import secrets
import site
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.job_config import JobConfig

T = TypeVar("T")
MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


@contextmanager
def private() -> Iterator[dict[str, Any]]:
    """Makes Ray on this machine serve this process and its children alone.

    They share a token that lies in no file, listen on the loopback interface, and keep sockets and
    logs in a folder that is gone with the session. Python looks for no module in the current
    folder. What the user's environment sets stays.

    Yields:
        What ``ray.init`` is to be given.
    """
    own = {
        "PYTHONSAFEPATH": "1",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with which Ray takes the loopback interface
        **(
            {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
            if sys.platform == "linux"
            else {}
        ),
        **_token(),
    }
    with ExitStack() as stack:
        stack.enter_context(_environment(own))
        stack.enter_context(mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False))
        given = {"address": "local", "_node_ip_address": "127.0.0.1"}
        if "RAY_TMPDIR" not in os.environ:
            made = tempfile.TemporaryDirectory(prefix="rayseg-", ignore_cleanup_errors=True)
            # one deeper, since Ray opens the folder that it is given to everybody
            given["_temp_dir"] = os.path.join(stack.enter_context(made), "ray")
        yield given


def is_private() -> bool:
    """Whether the Ray that runs has this machine only, and is not seen from others."""
    return ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback


def _token() -> dict[str, str]:
    """What is missing of a mode and a token; says where the user wants none."""
    mode = os.environ.get(MODE, "").lower()
    if mode and mode != "token":
        say(f"{MODE}={mode} is set: who runs programs on this machine can run some as you")
        return {}
    has_own = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    named = TOKEN in os.environ or f"{TOKEN}_PATH" in os.environ
    if named or (mode and has_own):
        return {MODE: "token"}
    return {MODE: "token", TOKEN: secrets.token_hex(32)}


def join(address: str, act: Callable[[], T], refused: Callable[[Exception], bool]) -> T:
    """Speaks to a cluster without a token, and with the user's where it asks for one.

    So no token goes to a cluster that has none. Where the user has set RAY_AUTH_MODE, that decides.

    Args:
        act: what is tried.
        refused: whether its error says that a token is missing.

    Raises:
        Exception: that of the act; one that says refused where the user has no token either.
    """
    if os.environ.get(MODE):
        return act()
    try:
        done = act()
    except Exception as error:
        if not refused(error):
            raise
        if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
            raise
        os.environ[MODE] = "token"
        _reread()
        return act()
    say(f"the cluster at {address} asks for no token: who reaches its ports can run programs there")
    return done


@cache
def say(line: str) -> None:
    """Prints a line, once in a process."""
    print(f"rayseg: {line}", flush=True)


@contextmanager
def _environment(own: Mapping[str, str]) -> Iterator[None]:
    """Adds variables, of this process and those that it starts, where they are not set."""
    added = {name: value for name, value in own.items() if not os.environ.get(name)}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    _reread()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _reread()


def _reread() -> None:
    """Makes Ray's core look at the environment again, which it does once by itself."""
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


class OwnPaths(JobConfig):
    """Has workers find rayseg, and what lies beside the script; nothing in the current folder."""

    def __init__(self) -> None:
        super().__init__(_py_driver_sys_path=_own_paths())

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # else Ray adds the current folder


def _own_paths() -> list[str]:
    """Folders that a worker would not have: that of the script, and that of a checkout."""
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    code = str(Path(__file__).resolve().parents[2])
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    found = [script] if script in sys.path else []
    return found if code in installed else [*found, code]
