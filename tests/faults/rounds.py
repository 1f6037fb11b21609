"""One round: a fault, the same command until it is done, a comparison with the undisturbed run."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rayseg.store.lock import LOCK
from tests.faults import s3
from tests.faults.chain import Command, Undisturbed
from tests.faults.commands import NOTICE, Ended, run_command
from tests.faults.compare import Differences, compare
from tests.faults.kinds import DAMAGES, KINDS, Scene
from tests.faults.processes import adopt_orphans, end_all
from tests.faults.ray_kinds import JOBS_ON_RAY, RAY_KINDS, run_program

TRIES = 6
"""Times that a user gives the command again, or what its message names."""
S3_KIND = "network cut to S3"
UNNAMED = "the job's process was killed"
"""Of what the supervising process says when its child is gone."""
NAMING = re.compile(r"file|disk|read-only|input/output|bit|S3")
"""Kinds whose messages must name a file of the run."""


@dataclass
class Round:
    """What came of one.

    Attributes:
        kind: of the fault.
        seed: by which exactly this round is repeated.
        command: that was disturbed.
        differences: from the undisturbed run.
        hung: commands that did not end.
        bad: messages that are not one line, or do not name what is to blame.
        said: how each command ended.
    """

    kind: str
    seed: str
    command: str
    differences: Differences = field(default_factory=Differences)
    hung: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether all is well."""
        return not (self.differences or self.hung or self.bad)


@dataclass(frozen=True)
class Grounds:
    """What rounds are played on.

    Attributes:
        plain: the undisturbed chain of commands in children of this process.
        ray: that of programs of their own, on Ray; None where no such kind is asked for.
        port: of a store that answers as S3, 0 for none.
    """

    plain: Undisturbed
    ray: Undisturbed | None = None
    port: int = 0


def play(grounds: Grounds, kind: str, seed: str, place: Path) -> Round:
    """Plays the round of a seed.

    Args:
        place: a folder for its run.
    """
    undisturbed = grounds.ray if kind in RAY_KINDS else grounds.plain
    assert undisturbed
    random = Random(f"{kind}/{seed}")
    weights = [one.weight * (kind not in RAY_KINDS or one.name in JOBS_ON_RAY)
               for one in undisturbed.chain]  # fmt: skip
    (number,) = random.choices(range(len(weights)), weights)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(undisturbed.before(number), place / "run")
    scene = Scene(undisturbed, number, place / "run", random)
    found = Round(kind, seed, scene.command.name)
    if kind == S3_KIND:
        _play_on_s3(scene, grounds.port, found)
    else:
        (_play_on_ray if kind in RAY_KINDS else _play)(scene, found)
    shutil.rmtree(place, ignore_errors=True)
    return found


def _play(scene: Scene, found: Round) -> None:
    for ended in KINDS[found.kind](scene):
        judge(found, ended, scene.run)
    for ended in recover(scene, found.kind):
        judge(found, ended, scene.run)
    _compare(scene, found, ended)


def _play_on_ray(scene: Scene, found: Round) -> None:
    adopt_orphans()
    ended = None
    for ended in RAY_KINDS[found.kind](scene):
        judge(found, ended, scene.run)
        _end_all(found)
    for _ in range(TRIES):
        if ended and ended.fine:
            break
        ended = run_program(scene)
        judge(found, ended, scene.run)
        _end_all(found)
    _compare(scene, found, ended)


def _end_all(found: Round) -> None:
    if left := end_all():
        found.hung.append(f"left running: {left}")


def _play_on_s3(scene: Scene, port: int, found: Round) -> None:
    ended, found.differences = s3.play(scene, port, TRIES)
    for one in ended:
        judge(found, one, f"s3://{s3.BUCKET}")
    if not ended[-1].fine:
        found.differences.wrong.append(f"never done: {ended[-1].errors[-1:]}")


def _compare(scene: Scene, found: Round, last: Ended) -> None:
    found.differences = compare(scene.run, scene.undisturbed.after(scene.number))
    if not last.fine:
        found.differences.wrong.append(f"never done: {last.errors[-1:]}")


def recover(scene: Scene, kind: str) -> Iterator[Ended]:
    """What a user does: the same command, and what its message names, until it is done.

    What no command reads is found by `rayseg check`, which a user of a damaged disk runs.
    """
    yield from _until_done(scene, scene.number, [])
    if kind not in DAMAGES:
        return
    checked = run_command(["check", "--run", str(scene.run)], scene.run)
    yield checked
    if not checked.status:
        return
    yield run_command(["check", "--run", str(scene.run), "--repair"], scene.run)
    for number in range(scene.number + 1):
        yield from _until_done(scene, number, [])


def _until_done(scene: Scene, number: int, more: list[str]) -> Iterator[Ended]:
    command, settings = scene.undisturbed.chain[number], scene.undisturbed.settings
    for _ in range(TRIES):
        ended = run_command(command.line(scene.run, settings, *more), scene.run)
        yield ended
        if ended.fine or ended.hung:
            return
        yield from _remedy(scene, number, " ".join(ended.errors), more)


def _remedy(scene: Scene, number: int, said: str, more: list[str]) -> Iterator[Ended]:
    """Does what a message names."""
    settings, earlier = scene.undisturbed.settings, scene.undisturbed.chain[:number]
    jobs: list[Command] = []
    if found := re.search(r"`rayseg (check [^`]*)`", said):
        yield run_command(shlex.split(found[1]), scene.run)
        jobs = list(earlier)
    elif found := re.search(r"`rayseg ([a-z-]+)[^`]*`", said):
        jobs = [one for one in earlier if one.job in found.groups()]
    elif "--compute.remake-stale" in said:
        more.append("--compute.remake-stale")
    elif "wait for its end" in said:
        _let_a_lease_lapse(scene.run)
    elif found := re.search(r"^rayseg: (\S+) .*delete it", said):
        Path(found[1]).unlink(missing_ok=True)
    for one in jobs:
        yield run_command(one.line(scene.run, settings), scene.run)


def _let_a_lease_lapse(run: Path) -> None:
    """As if two minutes passed."""
    for path in run.rglob(LOCK):
        then = path.stat().st_mtime - 120
        holder = re.sub(rb'"beat": [\d.]+', b'"beat": 0.0', path.read_bytes())
        path.write_bytes(holder)
        os.utime(path, (then, then))


def judge(found: Round, ended: Ended, run: Path | str) -> None:
    """Notes how a command ended, and what is wrong with that."""
    errors = [line for line in ended.errors if not NOTICE.search(line)]
    found.said.append(f"{ended.arguments[0]} {ended.status} {' | '.join(errors)[:400]}")
    if ended.hung:
        found.hung.append(ended.arguments[0])
    elif wrong := bad_message(ended, errors, str(run), bool(NAMING.search(found.kind))):
        found.bad.append(f"{ended.arguments[0]} {wrong}")


def bad_message(ended: Ended, errors: list[str], run: str, names: bool) -> str:
    """What is wrong with how a command ended; empty where nothing is.

    Args:
        errors: lines of stderr.
        names: a file of the run is to blame, and must be named.
    """
    first = errors[0] if errors else ""
    wrong = {
        "a traceback": "Traceback" in ended.output + "".join(errors),
        "an error that nobody foresaw": "(unforeseen" in first,
        "a status of its own": not ended.fine and ended.status not in (-9, 1, 130, 143),
        "lines although it is done": ended.fine and bool(errors),
        "not one line": ended.status > 0 and not ended.fine and len(errors) != 1,
        "not its own line": ended.status > 0 and not ended.fine and first[:8] != "rayseg: ",
        "no file": names and ended.status == 1 and run not in first and UNNAMED not in first,
    }
    found = next((name for name, holds in wrong.items() if holds), "")
    return f"{found}: status {ended.status}, {len(errors)} lines {errors[:3]}" if found else ""
