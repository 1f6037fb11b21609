"""One case: content that is wrong in one place, the command that takes it, and what must hold."""

import base64
import contextlib
import copy
import io
import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rayseg import cli
from tests.faults.commands import NOTICE, without_bars
from tests.faults.fuzz.borders import Border
from tests.faults.injection import EVENTS, WRITING, _patch_pyarrow

SECONDS = 20
"""After which a command on a handful of small files counts as hung."""
MEMORY = 3 << 30
"""Bytes beyond what a process has that one case may take."""
LONGEST = 1000
"""Characters of a message."""
STATES = ("missing", "folder", "link to nowhere", "link to itself", "empty")
"""What may stand in the place of a file."""


@dataclass(frozen=True)
class Case:
    """What is wrong.

    Attributes:
        border: where it comes in.
        seed: by which it is drawn again.
        files: content by place in the folder; a name of STATES for what is no file.
        commands: arguments, with FOLDER for the folder.
    """

    border: str
    seed: str
    files: dict[str, bytes | str]
    commands: list[list[str]]

    def as_json(self) -> str:
        """For `found/`."""
        files = {
            name: {"state": one}
            if isinstance(one, str)
            else {"data": base64.b64encode(one).decode()}
            for name, one in self.files.items()
        }
        said = {"border": self.border, "seed": self.seed, "files": files, "commands": self.commands}
        return json.dumps(said, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Case":
        said = json.loads(text)
        files = {
            name: one.get("state") or base64.b64decode(one["data"])
            for name, one in said["files"].items()
        }
        return cls(said["border"], said["seed"], files, said["commands"])


@dataclass
class Verdict:
    """What came of a case; empty where all holds.

    Attributes:
        what: died, hung, traceback, status, lines, no name, or outside.
        said: more of it.
    """

    case: Case
    what: str = ""
    said: str = ""
    statuses: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.what


def draw(border: Border, template: Path, seed: str) -> Case:
    """The case of a seed."""
    random = Random(f"{border.name}/{seed}")
    files = _wrong(border, template, random) if border.mutable else {}
    return Case(border.name, seed, files, border.commands(Path("FOLDER"), random))


def _wrong(border: Border, template: Path, random: Random) -> dict[str, bytes | str]:
    """One file, and what stands there."""
    pattern = random.choice(list(border.mutable))
    path = random.choice(sorted(path for path in template.glob(pattern) if path.is_file()))
    content: bytes | str = border.mutable[pattern](path.read_bytes(), random)
    if random.random() < 0.02:
        content = random.choice(STATES)
    elif random.random() < 0.03 and path.suffix in (".jpg", ".png", ".bmp", ".gif"):
        others = sorted(template.glob("**/*.[jpgb][pnim][gpf]"))
        content = random.choice(others).read_bytes()
    return {str(path.relative_to(template)): content}


def put(folder: Path, name: str, content: bytes | str) -> None:
    """Puts the wrong content in the place of the right one."""
    path = folder / name
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "link to nowhere":
        path.symlink_to("/nowhere/at/all")
    elif content == "link to itself":
        path.symlink_to(path)
    elif content == "empty":
        path.write_bytes(b"")


@dataclass
class Watch:
    """Notes what is written outside of the run."""

    run: str = "/nothing"
    allowed: tuple[str, ...] = ("/dev/", "/proc/")
    outside: list[str] = field(default_factory=list)
    reads: bool = False
    on: bool = False

    def install(self) -> None:
        sys.addaudithook(self._hear)
        _patch_pyarrow(self)  # type: ignore[arg-type]

    def meet(self, path: object, write: Callable[[], None] | None = None) -> None:
        if not self.on or isinstance(path, int):
            return
        text = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        if text != self.run and not text.startswith((f"{self.run}/", *self.allowed)):
            self.outside.append(text)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = given
            if path is not None and ((flags or 0) & WRITING or (mode and set(mode) & set("wax+"))):
                self.meet(path)
        elif event in EVENTS:
            for place in EVENTS[event][-1:]:
                self.meet(given[place])


class Hung(BaseException):
    """A command took too long."""


def _ring(number: int, frame: Any) -> None:
    raise Hung


def examine(case: Case, folder: Path, watch: Watch) -> Verdict:
    """Runs the commands of a case in a folder that is right but for its files."""
    for name, content in case.files.items():
        put(folder, name, content)
    watch.run, watch.outside = str(folder / "run"), []
    found = Verdict(case)
    for command in case.commands:
        arguments = [part.replace("FOLDER", str(folder)) for part in command]
        what = _run(arguments, watch, found)
        if found.what:
            break
        if watch.outside:
            found.what, found.said = "outside", f"{sorted(set(watch.outside))[:3]}"
            break
        status, errors = what
        found.what, found.said = judged(case, folder, arguments, status, errors)
        if found.what or status not in (0, 3):
            break
    return found


def _run(arguments: list[str], watch: Watch, found: Verdict) -> tuple[int, list[str]]:
    output, errors = io.StringIO(), io.StringIO()
    status = -1
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SECONDS)
    watch.on = True
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            cli.main(arguments)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except Hung:
        found.what, found.said = "hung", " ".join(arguments[:1])
    except BaseException as error:
        found.what, found.said = "traceback", _place_of(error)
    finally:
        signal.alarm(0)
        watch.on = False
    found.statuses.append(status)
    return status, without_bars(errors.getvalue())


def _place_of(error: BaseException) -> str:
    """What an error says, and the last line of rayseg that it passed."""
    passed = traceback.extract_tb(error.__traceback__)
    last = ([one for one in passed if "/rayseg/" in one.filename] or passed)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__}: {str(error)[:200]} at {place}"


def judged(
    case: Case, folder: Path, arguments: list[str], status: int, errors: list[str]
) -> tuple[str, str]:
    """What is wrong with how a command ended, and more of it; empty where nothing is."""
    lines = [line for line in errors if not NOTICE.search(line)]
    shown = f"status {status}, {len(lines)} lines: {' | '.join(lines)[:300]}"
    one = lines[0] if lines else ""
    found = {
        "status": status not in (0, 1, 2, 3),
        "traceback": any("Traceback" in line for line in lines),
        "lines": bool(lines) if status in (0, 3) else len(lines) != 1,
        "unforeseen": "(unforeseen" in one,
        "long": len(one) > LONGEST,
        "no name": status in (1, 2) and not names_what(case, folder, one, arguments),
    }
    what = next((name for name, holds in found.items() if holds), "")
    return what, shown if what else ""


def names_what(case: Case, folder: Path, line: str, arguments: Sequence[str]) -> bool:
    """Whether a message names a file or folder of those that it was given, or a flag."""
    if f"{folder}/" in line or any(Path(name).name in line for name in case.files):
        return True
    if case.files:
        return False
    said = line.replace("-", "_")
    given = [part.replace("-", "_").split("=") for part in arguments[1:]]  # after the job's name
    bare = [[one[0].lstrip("_"), *one[1:]] for one in given]
    named = (part for one in given + bare for part in (one[0].split(".")[-1], *one))
    return any(len(part) > 1 and part[:200] in said for part in named)


def remember_parsing() -> None:
    """The same arguments are parsed once a process: that takes longer than the command."""
    plain, known = cli.parse, {}

    def parse(kind: Any, arguments: Sequence[str], program: str) -> Any:
        if "--config" in arguments:
            return plain(kind, arguments, program)
        key = (kind, tuple(arguments))
        if key not in known:
            known[key] = plain(kind, arguments, program)
        return copy.deepcopy(known[key])

    cli.parse = parse


def batch(border: Border, template: Path, folder: Path, cases: Sequence[Case]) -> Iterator[Verdict]:
    """The verdicts on cases, in children that each may die of one."""
    left = list(cases)
    while left:
        verdicts, death = _in_a_child(border, template, folder, left)
        yield from verdicts
        left = left[len(verdicts) :]
        if left and death:
            yield Verdict(left.pop(0), *death)


def _in_a_child(
    border: Border, template: Path, folder: Path, cases: Sequence[Case]
) -> tuple[list[Verdict], tuple[str, str] | None]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _work(border, template, folder, cases, writer)
    os.close(writer)
    verdicts = []
    with os.fdopen(reader, "rb") as answers:
        while ready := _line(answers, SECONDS * 3):
            said = json.loads(ready)
            verdicts.append(Verdict(cases[len(verdicts)], **said))
    hung = ready is None
    if hung:
        os.kill(child, signal.SIGKILL)
    _, how = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(how)
    if hung:
        return verdicts, ("hung", "and deaf to signals")
    return verdicts, ("died", f"exit {code}") if code else None


def _line(answers: Any, seconds: float) -> bytes | None:
    """The next line, empty at the end; None where none comes."""
    import select

    if not select.select([answers], [], [], seconds)[0] and not answers.peek(1):
        return None
    return answers.readline()


def _work(border: Border, template: Path, folder: Path, cases: Sequence[Case], writer: int) -> None:
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        remember_parsing()
        watch = Watch()
        watch.install()
        folder.parent.mkdir(parents=True, exist_ok=True)
        for case in cases:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(template, folder)
            os.chdir(folder)
            found = examine(case, folder, watch)
            said = {"what": found.what, "said": found.said, "statuses": found.statuses}
            os.write(writer, json.dumps(said).encode() + b"\n")
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        os._exit(70)
    os._exit(0)
