"""The command line: ``rayseg <job>``, with the job's dataclass as flags.

Values are taken from the defaults, then the preset, then TOML files in the order given, then flags.
Exit status: 0 all done, 1 an error, shown in one line, 2 a wrong flag, 3 done but for images
that have a row saying why.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from rayseg.config import JobConfig, as_written, read_toml
from rayseg.config.job_list import JOBS
from rayseg.config.secrets import masked
from rayseg.toml import hint

USAGE = """usage: rayseg <job> [--config FILE.toml ...] [--preset official|as_written] [flags]
       rayseg submit <job> --address http://HEAD:8265 [--working-dir .] [--no-follow] [flags]

jobs:
{jobs}

`rayseg <job> --help` lists the job's flags; `submit` runs a job on a cluster, follows its logs and
ends with its exit status."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one job and ends the process with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        described = [f"  {name:17} {job.summary}" for name, job in JOBS.items()]
        print(USAGE.format(jobs="\n".join(described)))
        sys.exit(0 if given else 2)
    if given[0] == "submit":
        sys.exit(submit_job(given[1:]))
    _check_job(given[0])
    sys.exit(run_job(given[0], given[1:]))


def submit_job(arguments: Sequence[str]) -> int:
    """Submits the job that the first argument names, its flags checked here."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.partition("\n\n")[0])
        return 0 if arguments else 2
    name = arguments[0]
    _check_job(name)
    from rayseg.on_ray.submission import Submission, split_flags, submit  # noqa: PLC0415  # loads Ray

    try:
        mine, flags = split_flags(arguments[1:])
        with contextlib.chdir(mine["working-dir"]):  # where --config will be read
            run = parse(JOBS[name].config, flags, f"rayseg submit {name}").run
        submission = Submission(name, tuple(flags), run, mine["address"], mine["working-dir"])
        return submit(submission, bool(mine["follow"]))
    except (ValueError, OSError) as error:
        if os.environ.get("RAYSEG_TRACEBACK"):
            raise
        _stop(1, _one_line(error))


def _check_job(name: str) -> None:
    known = [*JOBS, "submit"]
    if name not in JOBS:
        _stop(2, f"job must be one of {', '.join(known)}, got {name!r}{hint(name, known)}")


def run_job(name: str, arguments: Sequence[str]) -> int:
    """Runs the job with those flags and returns its exit status; errors are one line."""
    job = JOBS[name]
    try:
        config = parse(job.config, arguments, f"rayseg {name}")
        outcome = job.run(config)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if os.environ.get("RAYSEG_TRACEBACK"):
            raise
        _stop(1, _one_line(error))
    except KeyboardInterrupt:
        _stop(130, "interrupted; the same command goes on where it was")
    print("\n".join(outcome.lines))
    if outcome.failed:
        print(f"{len(outcome.failed)} images have no result; their rows and the report say why")
    return 3 if outcome.failed or outcome.left_out else 0


def parse(kind: type[JobConfig], arguments: Sequence[str], program: str) -> JobConfig:
    """The job's configuration from presets, TOML files and flags.

    Raises:
        ValueError: a file or value that does not fit.
        SystemExit: a wrong flag (status 2) or ``--help`` (status 0).
    """
    import tyro  # noqa: PLC0415  # half a second of every process

    base, rest = _with_files(kind(), list(arguments))
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=program, args=rest, default=base)
    except SystemExit as ending:
        if not ending.code:
            print(output.getvalue(), end="")
            raise
        _stop(2, _unboxed(output.getvalue() + errors.getvalue()))


def _with_files(base: JobConfig, arguments: list[str]) -> tuple[JobConfig, list[str]]:
    """The defaults under ``--preset`` and ``--config``, and the arguments that are left."""
    rest: list[str] = []
    files: list[str] = []
    presets: list[str] = []
    while arguments:
        flag, equals, value = arguments.pop(0).partition("=")
        if flag in ("--config", "--preset"):
            if not value and not arguments:
                _stop(2, f"{flag} must be followed by a value")
            (files if flag == "--config" else presets).append(value or arguments.pop(0))
        else:
            rest.append(flag + equals + value)
    for preset in presets:
        if preset not in ("official", "as_written"):
            _stop(2, f"preset must be official or as_written, got {preset!r}")
        base = as_written(base) if preset == "as_written" else base
    for file in files:
        base = read_toml(file, base)
    return base, rest


def _unboxed(text: str) -> str:
    """The parser's message without its frame, in one line."""
    words = [line.strip("╭╮╰╯│─- ") for line in text.splitlines()]
    kept = [line for line in words if line and not line.startswith("For full helptext")]
    text = " ".join(kept)  # of which the first words are the frame's title, which repeats
    for title, start in (("Unrecognized options", "Unrecognized"), ("Invalid choice", "invalid")):
        text = text.replace(f"{title} {start}", start.capitalize())
    wrong = re.search(r"Invalid choice '([^']*)'.*Expected one of \((.*)\)", text)
    return text.rstrip(".") + hint(wrong[1], re.findall(r"'([^']*)'", wrong[2])) if wrong else text


def _one_line(error: BaseException) -> str:
    """What went wrong; of an error that crossed processes the cause at its end."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _stop(status: int, message: str) -> NoReturn:
    print(f"rayseg: {masked(message)}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":  # `python -m rayseg.cli`, as a cluster runs it
    main()
