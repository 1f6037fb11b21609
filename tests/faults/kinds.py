"""Kinds of faults: what each does to a run in small, or to the command that works on it."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.chain import Command, Undisturbed
from tests.faults.commands import Ended, run_command, start_command
from tests.faults.injection import BROKEN, FULL, LOCKED, Operations, kill, lose_power, refuse

HOUR = 3600.0
FOR_USERS = (
    "run.toml", "report.html", "trials.json", "table.csv", "best.toml", "sensitivity.png",
)  # fmt: skip
"""Files that are made anew by every command that makes them, and read by none."""


@dataclass(frozen=True)
class Scene:
    """Where a fault happens.

    Attributes:
        undisturbed: the chain as it ought to be.
        number: of the command in the chain that is disturbed.
        run: a copy of the run, its own.
        random: draws where the fault lies.
    """

    undisturbed: Undisturbed
    number: int
    run: Path
    random: Random

    @property
    def command(self) -> Command:
        """That command."""
        return self.undisturbed.chain[self.number]

    @property
    def operations(self) -> int:
        """On files, that it does undisturbed."""
        return self.undisturbed.operations[self.number]

    def line(self, *more: str) -> list[str]:
        """Arguments of the command that is disturbed."""
        return self.command.line(self.run, self.undisturbed.settings, *more)

    def at_one(self, act: Callable[[], None], **how: bool) -> list[Ended]:
        """The command, with something that happens at one of its operations on files."""
        at = self.random.randint(1, self.operations)
        operations = Operations(str(self.run), at, act, **how)
        return [run_command(self.line(), self.run, operations.install)]


def killed(scene: Scene) -> list[Ended]:
    return scene.at_one(kill())


def killed_amid_a_write(scene: Scene) -> list[Ended]:
    return scene.at_one(kill(), amid=True)


def killed_at_any_moment(scene: Scene) -> list[Ended]:
    """From outside."""
    usual = scene.undisturbed.ended[scene.number].seconds
    after = scene.random.uniform(0, usual)

    def soon(pid: int) -> None:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)  # it may have ended, but is not waited for yet

    return [run_command(scene.line(), scene.run, meanwhile=soon)]


def terminated(scene: Scene) -> list[Ended]:
    return scene.at_one(kill(signal.SIGTERM))


def interrupted(scene: Scene) -> list[Ended]:
    return scene.at_one(kill(signal.SIGINT))


def power_lost(scene: Scene) -> list[Ended]:
    at = scene.random.randint(1, scene.operations)
    operations = Operations(str(scene.run), at)

    def prepared() -> None:
        operations.act = lose_power(operations)
        operations.install()

    return [run_command(scene.line(), scene.run, prepared)]


def disk_full(scene: Scene) -> list[Ended]:
    """From one write on."""
    return scene.at_one(refuse(FULL), amid=scene.random.random() < 0.5, on=True)


def disk_full_once(scene: Scene) -> list[Ended]:
    return scene.at_one(refuse(FULL), amid=True)


def input_output_error(scene: Scene) -> list[Ended]:
    """At any operation, reading too."""
    return scene.at_one(refuse(BROKEN), reads=scene.random.random() < 0.5)


def read_only(scene: Scene) -> list[Ended]:
    """From one operation on, as a disk is after an error."""
    return scene.at_one(refuse(LOCKED), on=True)


def files_limited(scene: Scene) -> list[Ended]:
    """No file may be longer than so many bytes."""
    most = scene.random.choice((4096, 6000, 10_000, 20_000))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
    return [run_command(scene.line(), scene.run, limit)]


@contextmanager
def small_disk(scene: Scene, room: int) -> Iterator[Callable[[str], None]]:
    """The run on a disk of its own with so many free bytes; gives what mounts it otherwise."""
    used = sum(-(-path.stat().st_size // 4096) + 1 for path in scene.run.rglob("*")) * 4096
    aside = scene.run.with_name(f"{scene.run.name}-aside")
    scene.run.rename(aside)
    scene.run.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", *options, str(scene.run)], check=True)

    mount("-t", "tmpfs", "-o", f"size={used + room}", "tmpfs")
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(scene.run)], check=True)
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        for path in aside.rglob("*"):
            if path.is_file():
                path.unlink()
        subprocess.run(["cp", "-a", f"{scene.run}/.", str(aside)], check=True)
        gone = [
            path for path in aside.rglob("*") if not (scene.run / path.relative_to(aside)).exists()
        ]
        for path in sorted(gone, reverse=True):
            path.rmdir()
        subprocess.run(["umount", str(scene.run)], check=True)
        scene.run.rmdir()
        aside.rename(scene.run)


def small_disk_full(scene: Scene) -> list[Ended]:
    """A real one."""
    with small_disk(scene, scene.random.choice((0, 4096, 8192, 16384, 40960))):
        return [run_command(scene.line(), scene.run)]


def mounted_read_only(scene: Scene) -> list[Ended]:
    """A real one."""
    with small_disk(scene, 1 << 20) as remount:
        remount("ro")
        ended = run_command(scene.line(), scene.run)
        remount("rw")
        return [ended]


def clock_jumps(scene: Scene) -> list[Ended]:
    """The command's clock is hours off, and it is killed or not."""
    shift = scene.random.choice((-48, -2, -0.02, 0.02, 2, 48)) * HOUR
    at = scene.random.choice((0, scene.random.randint(1, scene.operations)))
    operations = Operations(str(scene.run), at, kill())

    def prepared() -> None:
        set_clock(shift)
        operations.install()

    return [run_command(scene.line(), scene.run, prepared)]


def set_clock(shift: float) -> None:
    """Moves this process's clock."""
    plain, plain_ns = time.time, time.time_ns
    time.time = lambda: plain() + shift
    time.time_ns = lambda: plain_ns() + int(shift * 1e9)


def two_at_once(scene: Scene) -> list[Ended]:
    """The same command twice, perhaps by clocks that disagree."""
    shift = scene.random.choice((0, 0, -2 * HOUR, 2 * HOUR))
    first = start_command(scene.line(), scene.run, partial(set_clock, shift))
    time.sleep(scene.random.uniform(0, scene.undisturbed.ended[scene.number].seconds))
    second = start_command(scene.line(), scene.run)
    return [first.wait(), second.wait()]


# What happens to files while no command runs


def damage(scene: Scene, how: Callable[[Scene, bytes], bytes]) -> list[Ended]:
    """One file of the run is not as it was written; the command was killed before, or had ended."""
    if scene.random.random() < 0.5:
        ended = scene.at_one(kill())
    else:
        ended = [run_command(scene.line(), scene.run)]
    files = [path for path in files_of(scene) if path.stat().st_size]
    if not files:  # it was killed before its first one
        return ended
    own = [path for path in files if is_of(path.relative_to(scene.run), scene)] or files
    path = scene.random.choice(own if scene.random.random() < 0.7 else files)
    path.write_bytes(how(scene, path.read_bytes()))
    return ended


def files_of(scene: Scene) -> list[Path]:
    """Files that rayseg reads again; not what is made for the user alone."""
    exported = scene.run / (scene.command.out or "nothing")
    return [
        path for path in sorted(scene.run.rglob("*"))
        if path.is_file() and path.name not in FOR_USERS
        and exported not in path.parents
    ]  # fmt: skip


def is_of(place: Path, scene: Scene) -> bool:
    """Whether the command that is disturbed made the file."""
    before = scene.undisturbed.before(scene.number)
    return not (before / place).exists()


def cut(scene: Scene, data: bytes) -> bytes:
    return data[: scene.random.randrange(len(data))]


def zeroed(scene: Scene, data: bytes) -> bytes:
    """All of it, or the end, as a file system leaves what was not written."""
    start = scene.random.choice((0, scene.random.randrange(len(data))))
    return data[:start] + bytes(len(data) - start)


def flipped(scene: Scene, data: bytes) -> bytes:
    place = scene.random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << scene.random.randrange(8)]) + data[place + 1 :]


def emptied(scene: Scene, data: bytes) -> bytes:
    return b""


def deleted(scene: Scene) -> list[Ended]:
    """One file of what the command made."""
    ended = [run_command(scene.line(), scene.run)]
    files = files_of(scene)
    own = [path for path in files if is_of(path.relative_to(scene.run), scene)] or files
    scene.random.choice(own).unlink()
    return ended


KINDS: dict[str, Callable[[Scene], list[Ended]]] = {
    "SIGKILL between two file operations": killed,
    "SIGKILL amid a write": killed_amid_a_write,
    "SIGKILL at any moment": killed_at_any_moment,
    "SIGTERM": terminated,
    "SIGINT": interrupted,
    "power lost": power_lost,
    "disk full from a write on": disk_full,
    "disk full once, amid a write": disk_full_once,
    "disk full, a real one": small_disk_full,
    "longest file limited": files_limited,
    "input/output error": input_output_error,
    "read-only from an operation on": read_only,
    "read-only, a real mount": mounted_read_only,
    "file cut": partial(damage, how=cut),
    "file zeroed": partial(damage, how=zeroed),
    "bit flipped": partial(damage, how=flipped),
    "file emptied": partial(damage, how=emptied),
    "file deleted": deleted,
    "clock jumps": clock_jumps,
    "two commands at once": two_at_once,
}
"""By the name in the table; each gives how the disturbed commands ended."""
DAMAGES = ("file cut", "file zeroed", "bit flipped", "file emptied", "file deleted")
"""Kinds after which a run may hold what no command of the chain reads."""
