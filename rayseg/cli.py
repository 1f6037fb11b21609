"""The command line: ``rayseg <job>``, with the job's dataclass as flags.

Values are taken from the defaults, then presets, then TOML files in the order given, then flags.
Exit status: 0 all done, 1 an error, shown in one line, 2 a wrong flag, 3 done but for images
that have a row saying why, 130 and 143 ended by SIGINT and SIGTERM.
"""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from rayseg.config import JobConfig, read_toml
from rayseg.config.help import FILES, full_help, short_help, wrong_flag
from rayseg.config.job_list import JOBS
from rayseg.config.preset import with_presets
from rayseg.config.secrets import masked
from rayseg.ending import GOES_ON, explained, raise_at_signals, say, supervised, was_asked
from rayseg.flag_errors import one_line
from rayseg.progress import speaking
from rayseg.toml import hint

USAGE = """usage: rayseg <job> [--config FILE.toml ...] [--preset NAME ...] [flags]
       rayseg <job> --help | --help-all
       rayseg --version
       rayseg submit <job> --address http://HEAD:8265 [--working-dir .] [--no-follow] [flags]

jobs:
{jobs}

`rayseg <job> --help` shows the flags that people use and examples, --help-all all flags. `submit`
runs a job on a cluster, follows its logs and ends with its exit status."""
HELPS = {"-h": short_help, "--help": short_help, "--help-all": full_help}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one job and ends the process with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        described = [f"  {name:17} {job.summary}" for name, job in JOBS.items()]
        print(USAGE.format(jobs="\n".join(described)))
        sys.exit(0 if given else 2)
    if given[0] == "--version":
        print(f"rayseg {version('rayseg')}")
        sys.exit(0)
    if given[0] == "submit":
        if arguments is None:
            raise_at_signals()
        sys.exit(submit_job(given[1:]))
    _check_job(given[0])
    # within another program, such as a test, no process is made for it
    sys.exit((run_job if arguments is not None else run_script)(given[0], given[1:]))


def run_script(name: str, arguments: Sequence[str]) -> int:
    """`run_job` as a program of its own: whatever ends it, it ends in one line and a status."""
    asks = HELPS.keys() & set(arguments) or os.environ.get("RAYSEG_TRACEBACK")
    return (
        run_job(name, arguments) if asks else supervised(partial(_run_signalled, name, arguments))
    )


def _run_signalled(name: str, arguments: Sequence[str]) -> int:
    raise_at_signals()
    return run_job(name, arguments)


def submit_job(arguments: Sequence[str]) -> int:
    """Submits the job that the first argument names, its flags checked here."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.partition("\n\n")[0])
        return 0 if arguments else 2
    name = arguments[0]
    _check_job(name)
    if _helped(name, arguments[1:]):
        return 0
    try:
        mine, flags = split_flags(arguments[1:])
        _check_flags(name, flags)
        from rayseg.on_ray.submission import Submission, submit  # noqa: PLC0415  # loads Ray

        with contextlib.chdir(mine["working-dir"]):  # where --config will be read
            run = parse(JOBS[name].config, flags, f"rayseg submit {name}").run
        submission = Submission(name, tuple(flags), run, mine["address"], mine["working-dir"])
        return submit(submission, bool(mine["follow"]))
    except Exception as error:
        _stop_for(error)


def split_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The flags of ``submit`` itself, and those of its job.

    Raises:
        ValueError: a flag without its value.
        FileNotFoundError: there is no such working directory.
    """
    mine, rest, given = {"address": "", "working-dir": ".", "follow": "yes"}, [], list(arguments)
    while given:
        flag, equals, value = given.pop(0).partition("=")
        if flag == "--no-follow":
            mine["follow"] = ""
        elif flag in ("--address", "--working-dir"):
            if not equals and not given:
                raise ValueError(f"{flag} must be followed by a value")
            mine[flag[2:]] = value if equals else given.pop(0)
        else:
            rest.append(flag + equals + value)
    if not Path(mine["working-dir"]).is_dir():
        raise FileNotFoundError(f"working directory {mine['working-dir']} does not exist")
    mine["address"] = mine["address"] or os.environ.get("RAY_API_SERVER_ADDRESS", "")
    return mine, rest


def _check_job(name: str) -> None:
    known = [*JOBS, "submit"]
    if name not in JOBS:
        _stop(2, f"job must be one of {', '.join(known)}, got {name!r}{hint(name, known)}")


def _helped(name: str, arguments: Sequence[str]) -> bool:
    """Prints the help of a job, where the arguments ask for it."""
    asked = [one for one in arguments if one in HELPS]
    if asked:
        _print([HELPS[asked[0]](name)])
    return bool(asked)


def _check_flags(name: str, arguments: Sequence[str]) -> None:
    """Ends the process for a wrong flag, before what flags set is loaded, which takes seconds."""
    if wrong := wrong_flag(name, arguments):
        _stop(2, wrong)


def run_job(name: str, arguments: Sequence[str]) -> int:
    """Runs the job with those flags and returns its exit status; errors are one line."""
    job = JOBS[name]
    if _helped(name, arguments):
        return 0
    _check_flags(name, arguments)
    try:
        config = parse(job.config, with_flags(job.words, arguments), f"rayseg {name}")
        with speaking(name):
            outcome = job.run(config)
    except (Exception, KeyboardInterrupt) as error:
        _print(getattr(error, "__notes__", []))  # what a run had to say before it
        _stop_for(error)
    _print([*outcome.lines[outcome.told :], *_left_out(outcome)])
    return 3 if outcome.failed or outcome.left_out else 0


def with_flags(words: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The arguments with a flag before each that is known by its place."""
    rest = list(arguments)
    flags = []
    for word in words:
        if rest and not rest[0].startswith("-"):
            flags.append(f"--{word}={rest.pop(0)}")
    return flags + rest


def _left_out(outcome: Any) -> list[str]:
    number = len(outcome.failed)
    said = f"{number} images have no result; their rows and the report say why"
    return [said] if number else []


def _print(lines: list[str]) -> None:
    """Lines on stdout; whoever reads them may stop early, as `head` does."""
    try:
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python says so when it ends


def parse(kind: type[JobConfig], arguments: Sequence[str], program: str) -> JobConfig:
    """The job's configuration from presets, TOML files and flags.

    Raises:
        ValueError: a file or value that does not fit.
        SystemExit: a wrong flag, with status 2.
    """
    import tyro  # noqa: PLC0415  # half a second of every process

    base, rest = _with_files(kind(), list(arguments))
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=program, args=rest, default=base)
    except SystemExit:
        _stop(2, one_line(output.getvalue() + errors.getvalue(), rest, base))


def _with_files(base: JobConfig, arguments: list[str]) -> tuple[JobConfig, list[str]]:
    """The defaults under ``--preset`` and ``--config``, and the arguments that are left."""
    rest: list[str] = []
    files: list[str] = []
    presets: list[str] = []
    while arguments:
        flag, equals, value = arguments.pop(0).partition("=")
        if flag in FILES:
            if not value and not arguments:
                _stop(2, f"{flag} must be followed by a value")
            (files if flag == "--config" else presets).append(value or arguments.pop(0))
        else:
            rest.append(flag + equals + value)
    try:
        base = with_presets(base, presets)
    except ValueError as error:
        _stop(2, str(error))
    for file in files:
        base = read_toml(file, base)
    return base, rest


def _stop_for(error: Exception | KeyboardInterrupt) -> NoReturn:
    """Ends the process for an error, in one line.

    Raises:
        Exception: the error itself, where RAYSEG_TRACEBACK is set.
    """
    if ending := was_asked():
        _stop(ending.status, str(ending))
    if isinstance(error, KeyboardInterrupt):
        _stop(130, f"interrupted; {GOES_ON}")
    if os.environ.get("RAYSEG_TRACEBACK"):
        raise error
    if isinstance(error, ExceptionGroup):  # a line each
        for one in error.exceptions[:-1]:
            say(masked(explained(one)))
        error = error.exceptions[-1]
    _stop(1, explained(error))


def _stop(status: int, message: str) -> NoReturn:
    say(masked(message))
    sys.exit(status)


if __name__ == "__main__":  # `python -m rayseg.cli`, as a cluster runs it
    main()
