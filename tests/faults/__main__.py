"""Rounds of faults by command: ``python -m tests.faults --rounds 300 --seed 1``."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from tests.faults.chain import CHAIN, kept_undisturbed, make_undisturbed
from tests.faults.commands import warm_up
from tests.faults.compare import Differences
from tests.faults.kinds import KINDS
from tests.faults.ray_kinds import JOBS_ON_RAY, RAY_KINDS
from tests.faults.rounds import S3_KIND, Grounds, Round, play
from tests.faults.s3 import store
from tests.faults.table import describe, page, table
from tests.faults.trunk import give_it_back

WEIGHTS = {**dict.fromkeys(KINDS, 13), S3_KIND: 9, **dict.fromkeys(RAY_KINDS, 3)}
"""Shares of the kinds; one on Ray takes as long as ten others."""
RAY_ROUNDS_AT_ONCE = 2
"""Most of such a round is waiting."""
RAY_CHAIN = tuple(one for one in CHAIN if one.name in ("prepare", "classifier", *JOBS_ON_RAY))


def main() -> int:
    """Plays the rounds and says what came of them; 1 where something did."""
    given = _parsed()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    rounds = [(given.kinds[0], given.repeat)] if given.repeat else drawn(given)
    warm_up()
    began = time.monotonic()
    try:
        with ExitStack() as opened:
            chain = Path(given.chain) if given.chain else folder / "undisturbed"
            grounds = _grounds({kind for kind, _ in rounds}, folder, chain, opened)
            found = list(_played(rounds, grounds, folder, given.workers))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    said = f"{describe(given.seed, time.monotonic() - began)}\n\n{table(found)}\n"
    print(said)
    if given.out:
        Path(given.out).write_text(page(said))
    return int(not all(found))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--kinds", nargs="+", default=[""], help="only these; parts of names")
    parser.add_argument("--engine", choices=("plain", "ray", "both"), default="both")
    parser.add_argument("--repeat", help="a round's own seed, as a failing one is printed with")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chain", help="folder that the undisturbed chain is kept in, or is made")
    parser.add_argument("--out", help="file that the table is written to")
    given = parser.parse_args()
    given.kinds = [
        kind for kind in WEIGHTS
        if any(part in kind for part in given.kinds)
        and given.engine in ("both", "ray" if kind in RAY_KINDS else "plain")
    ]  # fmt: skip
    return given


def drawn(given: argparse.Namespace) -> list[tuple[str, str]]:
    """Kind and seed of each round."""
    whole = sum(WEIGHTS[kind] for kind in given.kinds)
    rounds = []
    for kind in given.kinds:
        number = max(round(given.rounds * WEIGHTS[kind] / whole), 1)
        rounds += [(kind, f"{given.seed}/{n}") for n in range(number)]
    return rounds


def _grounds(kinds: set[str], folder: Path, kept: Path, opened: ExitStack) -> Grounds:
    plain = kept_undisturbed(kept)
    ray, port = None, 0
    if kinds & RAY_KINDS.keys():
        ray = make_undisturbed(folder / "undisturbed-ray", RAY_CHAIN, give_it_back)
    if S3_KIND in kinds:
        port = opened.enter_context(store())
    return Grounds(plain, ray, port)


def _played(
    rounds: Sequence[tuple[str, str]], grounds: Grounds, folder: Path, workers: int
) -> Iterator[Round]:
    """The rounds on Ray, and beside them the others."""
    run = partial(_play, grounds, folder)
    ray = [one for one in rounds if one[0] in RAY_KINDS]
    plain = [one for one in rounds if one[0] not in RAY_KINDS]
    context = get_context("fork")
    with (
        ProcessPoolExecutor(max(workers - bool(ray), 1), mp_context=context) as many,
        ProcessPoolExecutor(RAY_ROUNDS_AT_ONCE, mp_context=context) as few,
    ):
        on_ray = few.map(run, ray)
        for found in chain(many.map(run, plain), on_ray):
            if not found or len(rounds) == 1:
                _tell(found)
            yield found


def _play(grounds: Grounds, folder: Path, given: tuple[str, str]) -> Round:
    kind, seed = given
    place = folder / f"{list(WEIGHTS).index(kind)}-{seed.replace('/', '-')}"
    try:
        return play(grounds, kind, seed, place)
    except Exception as error:  # the others go on
        return Round(kind, seed, "", Differences(wrong=[f"the round itself failed: {error!r}"]))


def _tell(found: Round) -> None:
    print(f"--kinds {found.kind!r} --repeat {found.seed} ({found.command})", file=sys.stderr)
    for line in (*found.said, str(found.differences), *map("hung: {}".format, found.hung),
                 *map("bad message: {}".format, found.bad)):  # fmt: skip
        print(f"    {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
