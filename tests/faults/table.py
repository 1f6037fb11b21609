"""The table of what came of all rounds."""

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version

from tests.faults.rounds import Round

COLUMNS = ("kind", "rounds", "lost", "doubled", "wrong", "hung", "bad message")


def table(rounds: Iterable[Round]) -> str:
    """Markdown: a line for each kind and one for all; rounds with at least one of these."""
    kinds: dict[str, list[Round]] = {}
    for one in rounds:
        kinds.setdefault(one.kind, []).append(one)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += [_line(kind, found) for kind, found in kinds.items()]
    everything = [one for found in kinds.values() for one in found]
    return "\n".join([*lines, _line("all", everything)])


def _line(kind: str, found: list[Round]) -> str:
    counted = (
        sum(bool(one.differences.lost) for one in found),
        sum(bool(one.differences.doubled) for one in found),
        sum(bool(one.differences.wrong) for one in found),
        sum(bool(one.hung) for one in found),
        sum(bool(one.bad) for one in found),
    )
    return f"| {kind} | {len(found)} | " + " | ".join(map(str, counted)) + " |"


def describe(seed: str, seconds: float) -> str:
    """Seed, day, machine and versions."""
    packages = ("rayseg", "ray", "torch", "pyarrow", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"Seed {seed}, {datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} minutes, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {versions}."
    )


def page(said: str) -> str:
    """The page of the documentation."""
    return f"""# Faults

What came of the last `make faults`. In each round something goes wrong amid a command or between
two; then the same command is given again until it is done, or what its message names. The run is
then compared with one that nobody disturbed. Numbers are of rounds in which a row or file was lost,
a row came twice, anything else differed, a command did not end, or its message was not one line
that names what is to blame. `tests/faults/` says what each kind does.

{said}"""
