"""One command in a forked child of this process, which has loaded torch already."""

import contextlib
import importlib
import os
import re
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from rayseg import cli
from rayseg.config.job_list import JOBS, Job
from tests.faults.trunk import take_the_place_of_resnet18

PATIENCE_SECONDS = 120.0
"""After which a command of a run in small counts as hung."""
BAR = re.compile(r"[^\r\n]*?\[(\d+:)?\d\d:\d\d<[^\]\r\n]*\]")
"""A bar of progress; what follows it on its line is none."""
PROGRESS = re.compile(
    r"^(?!rayseg: )(.*: \d+ of \d+ \w+s\b.*|.*: [\d a-z]+ so far.*|.*: \d+ \w+s in \d+ [\d a-z]+|"
    r".*: note: .*|.*: \d+ images, so .*|.* classes; to be made, in this order:|"
    r"  \S+: \d+ (step|image)s.*)$"
)
"""A line of how far a job is, or of what a run will make."""
NOTICE = re.compile(
    r"^(?!rayseg: ).*(is taken over from|was taken over|no heartbeat of|its copy is taken$|"
    r"(is|was) damaged .*(again|anew|taken)$)"
)
"""Lines of the log that tell of another process or of what is mended, and are no errors."""
FINE = (0, 3)
LATE = (
    "rayseg.plain", "tests.faults.sweep", "torch._dynamo", "sklearn.metrics", "ray.tune", "jinja2",
    "matplotlib.backends.backend_agg", "PIL.PngImagePlugin", "tyro", "torch.utils.data",
    "pyarrow.parquet", "pyarrow.compute", "pyarrow.dataset", "rayseg.report",
    "rayseg.nets.detectors",
)  # fmt: skip
"""What commands import where they need it, which takes seconds."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        arguments: of rayseg.
        status: of its process; negative for a signal.
        output: what it said on stdout.
        errors: on stderr, without bars of progress.
        seconds: that it took.
        hung: it was ended, since it took too long.
    """

    arguments: list[str]
    status: int
    output: str
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    hung: bool = False

    @property
    def fine(self) -> bool:
        """Whether it says that it did its work."""
        return self.status in FINE


def warm_up() -> None:
    """Loads what every command needs, so that children need not."""
    torch.set_num_threads(1)
    for job in JOBS.values():
        importlib.import_module(job.kind.partition(":")[0])
        if "on_ray" not in job.function:
            importlib.import_module(job.function.partition(":")[0])
    for name in LATE:
        importlib.import_module(name)
    Image.init()
    take_the_place_of_resnet18()
    JOBS["tune"] = Job(JOBS["tune"].kind, "tests.faults.sweep:tune")


def run_command(
    arguments: list[str],
    place: Path,
    prepared: Callable[[], None] = lambda: None,
    meanwhile: Callable[[int], None] = lambda pid: None,
    patience: float = PATIENCE_SECONDS,
) -> Ended:
    """Runs one command to its end.

    Args:
        arguments: of rayseg.
        place: the folder of the run.
        prepared: is called in the child before the command.
        meanwhile: is called in this process with the number of the child.
    """
    return start_command(arguments, place, prepared).wait(meanwhile, patience)


@dataclass
class Started:
    """A command that runs in a child."""

    arguments: list[str]
    pid: int
    said: tuple[str, str]
    began: float = field(default_factory=time.monotonic)

    def wait(
        self,
        meanwhile: Callable[[int], None] = lambda pid: None,
        patience: float = PATIENCE_SECONDS,
    ) -> Ended:
        """Until it has ended, or for so long."""
        meanwhile(self.pid)
        handle = os.pidfd_open(self.pid)
        hung = not select.select([handle], [], [], patience)[0]
        os.close(handle)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # and what it may have left
        _, how = os.waitpid(self.pid, 0)
        texts = []
        for name in self.said:
            texts.append(Path(name).read_text(errors="replace"))
            os.unlink(name)
        return Ended(
            self.arguments, os.waitstatus_to_exitcode(how), texts[0], without_bars(texts[1]),
            time.monotonic() - self.began, hung,
        )  # fmt: skip


def start_command(
    arguments: list[str], place: Path, prepared: Callable[[], None] = lambda: None
) -> Started:
    """Starts one command."""
    handles, names = zip(*(tempfile.mkstemp(prefix="said-") for _ in range(2)), strict=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _be(arguments, place, prepared, handles)
    for handle in handles:
        os.close(handle)
    return Started(arguments, pid, names)


def _be(arguments: list[str], place: Path, prepared: Callable[[], None], handles: tuple) -> None:
    status = 70
    try:
        os.setpgid(0, 0)
        os.dup2(handles[0], 1)
        os.dup2(handles[1], 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.chdir(place.parent)
        sys.argv = ["rayseg", *arguments]
        prepared()
        cli.main()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def without_bars(text: str) -> list[str]:
    """The lines of stderr that are no progress, each as it stands at last."""
    lines = BAR.sub("\n", text).replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip() and not PROGRESS.match(line)]
