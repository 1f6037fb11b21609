"""Rounds of faults by command: ``python -m tests.faults --rounds 300 --seed 1 --out docs/faults.md``."""

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.faults.chain import CHAIN, Undisturbed, make_undisturbed
from tests.faults.commands import run_command, warm_up
from tests.faults.injection import Operations
from tests.faults.kinds import KINDS
from tests.faults.rounds import Round, play
from tests.faults.table import describe, table


def main() -> int:
    """Plays the rounds and says what came of them; 1 where something did."""
    given = _parsed()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    warm_up()
    began = time.monotonic()
    try:
        undisturbed = make_undisturbed(folder / "undisturbed")
        operations = count_operations(undisturbed, folder / "counted")
        rounds = list(_played(given, undisturbed, operations, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = f"{describe(given.seed, time.monotonic() - began)}\n\n{table(rounds)}\n"
    print(text)
    if given.out:
        Path(given.out).write_text(f"# Faults\n\n{text}")
    return int(not all(rounds))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="only these; parts of names")
    parser.add_argument("--repeat", help="a round's own seed, as a failing one is printed with")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="file that the table is written to")
    return parser.parse_args()


def _played(
    given: argparse.Namespace, undisturbed: Undisturbed, operations: dict[str, int], folder: Path
) -> Iterator[Round]:
    kinds = [kind for kind in KINDS if any(part in kind for part in given.kinds)]
    tasks = list(itertools.islice(zip(itertools.cycle(kinds), itertools.count()), given.rounds))
    seeds = [(kind, f"{given.seed}/{number}") for kind, number in tasks]
    if given.repeat:
        seeds = [(kinds[0], given.repeat)]
    run = partial(_play, undisturbed, operations, folder)
    with ProcessPoolExecutor(given.workers, mp_context=get_context("fork")) as pool:
        for found in pool.map(run, *zip(*seeds, strict=True)):
            if not found or given.repeat:
                _tell(found)
            yield found


def _play(
    undisturbed: Undisturbed, operations: dict[str, int], folder: Path, kind: str, seed: str
) -> Round:
    return play(undisturbed, operations, kind, seed, folder / f"round-{seed.replace('/', '-')}")


def _tell(found: Round) -> None:
    print(f"--kinds {found.kind!r} --repeat {found.seed} ({found.command})", file=sys.stderr)
    for line in (*found.said, str(found.differences), *map("hung: {}".format, found.hung),
                 *map("bad message: {}".format, found.bad)):  # fmt: skip
        print(f"    {line}", file=sys.stderr)


def count_operations(undisturbed: Undisturbed, place: Path) -> dict[str, int]:
    """Operations on files of the run, by the command that does them."""
    counts = {}
    for number, command in enumerate(CHAIN):
        run, told = place / "run", place / "count"
        shutil.copytree(undisturbed.before(number), run)
        operations = Operations(str(run))

        def prepared(operations: Operations = operations, told: Path = told) -> None:
            operations.install()
            operations.tell = told

        run_command(command.line(run, undisturbed.settings), run, prepared)
        counts[command.name] = int(told.read_text())
        shutil.rmtree(place)
    return counts


if __name__ == "__main__":
    sys.exit(main())
