"""One round: a fault, the same command until it is done, a comparison with the undisturbed run."""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rayseg.config.job_list import JOBS
from tests.faults.chain import CHAIN, Undisturbed
from tests.faults.commands import NOTICE, Ended, run_command
from tests.faults.compare import Differences, compare
from tests.faults.kinds import DAMAGES, KINDS, Scene

TRIES = 6
"""Times that a user gives the command again, or what its message names."""
NAMING = re.compile(r"file|disk|read-only|input/output|mount|bit")
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


def play(
    undisturbed: Undisturbed, operations: dict[str, int], kind: str, seed: str, place: Path
) -> Round:
    """Plays the round of a seed.

    Args:
        operations: on files, by the command that does them.
        place: a folder for its run.
    """
    random = Random(seed)
    number = random.choice([n for n, one in enumerate(CHAIN) for _ in range(one.weight)])
    run = place / "run"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(undisturbed.before(number), run)
    command = CHAIN[number]
    scene = Scene(undisturbed, number, command, operations[command.name], run, random)
    found = Round(kind, seed, command.name)
    for ended in KINDS[kind](scene):
        judge(found, ended, run, disturbed=True)
    for ended in recover(scene, kind):
        judge(found, ended, run)
    if not ended.fine:
        found.differences.wrong.append(f"never done: {ended.errors[-1:]}")
    found.differences = _merged(found.differences, compare(run, undisturbed.after(number)))
    shutil.rmtree(place, ignore_errors=True)
    return found


def _merged(one: Differences, other: Differences) -> Differences:
    return Differences(one.lost + other.lost, one.doubled + other.doubled, one.wrong + other.wrong)


def recover(scene: Scene, kind: str) -> Iterator[Ended]:
    """What a user does: the same command, and what its message names, until it is done."""
    more: list[str] = []
    yield from _until_done(scene, scene.number, more)
    if kind not in DAMAGES or "check" not in JOBS:
        return
    checked = run_command(["check", "--run", str(scene.run)], scene.run)
    yield checked
    if not checked.status:
        return
    yield run_command(["check", "--run", str(scene.run), "--repair"], scene.run)
    for number in range(scene.number + 1):
        yield from _until_done(scene, number, [])


def _until_done(scene: Scene, number: int, more: list[str]) -> Iterator[Ended]:
    settings = scene.undisturbed.settings
    for _ in range(TRIES):
        ended = run_command(CHAIN[number].line(scene.run, settings, *more), scene.run)
        yield ended
        if ended.fine or ended.hung:
            return
        yield from _remedy(scene, number, " ".join(ended.errors), more)


def _remedy(scene: Scene, number: int, said: str, more: list[str]) -> Iterator[Ended]:
    """Does what a message names."""
    settings = scene.undisturbed.settings
    if found := re.search(r"`rayseg (check [^`]*)`", said):
        yield run_command(shlex.split(found[1]), scene.run)
        for earlier in range(number):
            yield run_command(CHAIN[earlier].line(scene.run, settings), scene.run)
    elif found := re.search(r"`rayseg ([a-z-]+)`|; run ([a-z-]+) once", said):
        job = found[1] or found[2]
        for earlier in range(number):
            if CHAIN[earlier].job == job:
                yield run_command(CHAIN[earlier].line(scene.run, settings), scene.run)
    elif "--compute.remake-stale" in said:
        more.append("--compute.remake-stale")
    elif found := re.search(r"^rayseg: (\S+) .*delete it", said):
        Path(found[1]).unlink(missing_ok=True)


def judge(found: Round, ended: Ended, run: Path, disturbed: bool = False) -> None:
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
    if "Traceback" in ended.output + "".join(errors):
        return f"{ended.status}: traceback {errors[-1:]}"
    if ended.fine:
        return f"{ended.status}: {errors[:2]}" if errors else ""
    if ended.status == -9:
        return ""
    if ended.status not in (1, 130, 143):
        return f"{ended.status}: {errors[:2]}"
    if len(errors) != 1 or not errors[0].startswith("rayseg: "):
        return f"{ended.status}: {len(errors)} lines {errors[:3]}"
    if names and ended.status == 1 and run not in errors[0]:
        return f"{ended.status} names no file: {errors[0]}"
    return ""
