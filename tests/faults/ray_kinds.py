"""Faults of Ray's processes: commands as programs of their own, on the engine `ray`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.commands import Ended, without_bars
from tests.faults.kinds import Scene
from tests.faults.processes import descendants, titled

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 400.0
"""After which a command of a run in small counts as hung, on a machine that does much else."""
ON_RAY = ("--engine", "ray", "--compute.actors", "2", "--compute.block-rows", "1")
JOBS_ON_RAY = ("seeds", "masks", "segmenter", "tune masks", "tune seeds")
"""Commands that are disturbed, by their names in the chain."""


def environment(**more: str) -> dict[str, str]:
    """Of a program that is to start its own Ray."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


def run_program(
    scene: Scene,
    *flags: str,
    meanwhile: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    **more: str,
) -> Ended:
    """The command as a program.

    Args:
        flags: beside those of every command on Ray.
        meanwhile: is called with its process.
        more: of its environment.
    """
    line = scene.line(*ON_RAY, *flags)
    said = [scene.run.with_name(name) for name in ("output", "errors")]
    began = time.monotonic()
    with said[0].open("wb") as output, said[1].open("wb") as errors:
        command = [sys.executable, "-m", "rayseg.cli", *line]
        options = {"cwd": scene.run.parent, "env": environment(**more)}
        process = subprocess.Popen(command, stdout=output, stderr=errors, **options)
    meanwhile(process)
    hung = False
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        hung = True
        process.kill()
        process.wait()
    texts = [path.read_text(errors="replace") for path in said]
    return Ended(
        line, process.returncode, texts[0], without_bars(texts[1]), time.monotonic() - began, hung
    )


def at_an_event(scene: Scene, act: Callable[[int], None]) -> Ended:
    """The command, with something that happens when Ray works, or rows are there."""
    begins = scene.random.choice(("ray", "actor", "rows"))
    later = scene.random.uniform(0, 2)

    def meanwhile(process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not _has_begun(begins, scene, process.pid):
            time.sleep(0.02)
        time.sleep(later)
        if process.poll() is None:
            act(process.pid)

    return run_program(scene, meanwhile=meanwhile)


def _has_begun(begins: str, scene: Scene, pid: int) -> bool:
    if begins == "rows":
        before = scene.undisturbed.before(scene.number)
        own = {path.relative_to(scene.run) for path in scene.run.rglob("*") if _is_result(path)}
        return any(not (before / place).exists() for place in own)
    return bool(titled({"ray": "raylet", "actor": "ray::"}[begins], pid))


def _is_result(path: Path) -> bool:
    return path.suffix in (".parquet", ".npz", ".safetensors")


def driver_killed(scene: Scene) -> list[Ended]:
    return [at_an_event(scene, lambda pid: os.kill(pid, signal.SIGKILL))]


def driver_terminated(scene: Scene) -> list[Ended]:
    return [at_an_event(scene, lambda pid: os.kill(pid, signal.SIGTERM))]


def _one_killed(kind: str) -> Callable[[Scene], list[Ended]]:
    def killing(scene: Scene) -> list[Ended]:
        def act(pid: int) -> None:
            found = titled(kind, pid)
            if found:
                try:
                    os.kill(scene.random.choice(sorted(found)), signal.SIGKILL)
                except ProcessLookupError:
                    return

        return [at_an_event(scene, act)]

    return killing


def memory_monitor(scene: Scene) -> list[Ended]:
    """Ray's own monitor ends whatever works, as on a machine whose memory others take."""
    return [
        run_program(scene, RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="100")
    ]


def node_lost(scene: Scene) -> list[Ended]:
    """One of three nodes is gone amid the command."""
    cluster = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.cluster"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment(),
        text=True,
    )  # fmt: skip
    assert cluster.stdin
    assert cluster.stdout
    address = cluster.stdout.readline().strip()
    later = scene.random.uniform(0, 3)

    def meanwhile(process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not _has_begun("rows", scene, process.pid):
            time.sleep(0.02)
            if any(titled("ray::", pid) for pid in descendants(cluster.pid)) and later > 1.5:
                break
        time.sleep(later)
        cluster.stdin.write("\n")
        cluster.stdin.flush()

    try:
        flags = ("--address", address)
        return [run_program(scene, *flags, meanwhile=meanwhile, RAY_AUTH_MODE="disabled")]
    finally:
        cluster.stdin.close()
        try:
            cluster.wait(60)
        except subprocess.TimeoutExpired:
            cluster.kill()
            cluster.wait()


RAY_KINDS: dict[str, Callable[[Scene], list[Ended]]] = {
    "Ray: SIGKILL of the driver": driver_killed,
    "Ray: SIGTERM of the driver": driver_terminated,
    "Ray: SIGKILL of an actor or task": _one_killed("ray::"),
    "Ray: SIGKILL of raylet": _one_killed("raylet"),
    "Ray: SIGKILL of gcs_server": _one_killed("gcs_server"),
    "Ray: memory monitor": memory_monitor,
    "Ray: node lost": node_lost,
}
"""By the name in the table."""
