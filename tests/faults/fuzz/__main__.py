"""Cases by command: ``python -m tests.faults.fuzz --cases 12000 --seed 1``."""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.faults.chain import make_undisturbed
from tests.faults.commands import warm_up
from tests.faults.fuzz.borders import Border, borders
from tests.faults.fuzz.cases import Case, Verdict, batch, draw
from tests.faults.table import describe

FOUND = Path(__file__).parents[1] / "found"
BATCH = 25
"""Cases of one child."""
PAGE = """# Wrong input

What came of the last `make fuzz`. Each case is an input of one border, such as a COCO JSON or an
image, with values that are strange or bytes that are wrong, and the commands that read it.
Numbers are of cases in which a process died or did not end, a traceback or an unforeseen error was
shown, a status was none of 0, 1, 2 and 3, a message was more than one line, longer than 1,000
characters or without the name of a file, or something was written outside the run.
`tests/faults/fuzz/` says what each border is.

{said}"""
"""Of the documentation."""


def main(plant: Callable[[], None] = lambda: None) -> int:
    """Draws the cases and says what came of them; 1 where something did.

    Args:
        plant: is called before the first case; for tests of the fuzzer.
    """
    given = _parsed()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    warm_up()
    began = time.monotonic()
    try:
        chosen = _chosen(given, folder)
        for border in chosen:
            border.make(_template(folder, border))
        plant()
        verdicts = list(_verdicts(given, chosen, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    said = f"{describe(given.seed, time.monotonic() - began)}\n\n{table(verdicts)}\n"
    print(said)
    if given.out:
        Path(given.out).write_text(PAGE.format(said=said))
    return int(not all(verdicts))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=12_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--borders", nargs="*", default=[""], help="only these; parts of names")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--replay", help="folder of cases that are played as well")
    parser.add_argument("--out", help="file that the table is written to")
    parser.add_argument("--keep", default=str(FOUND), help="folder that distinct failures go to")
    return parser.parse_args()


def _chosen(given: argparse.Namespace, folder: Path) -> list[Border]:
    """The borders that are asked for; a run is made for those that take one."""
    names = [name for name in borders(None) if any(part in name for part in given.borders)]
    needed = any(borders(None)[name].of_run for name in names)
    known = borders(make_undisturbed(folder / "undisturbed") if needed else None)
    return [known[name] for name in names]


def _template(folder: Path, border: Border) -> Path:
    made = folder / "templates" / re.sub(r"\W+", "-", border.name)
    made.mkdir(parents=True, exist_ok=True)
    return made


def _verdicts(given: argparse.Namespace, chosen: list[Border], folder: Path) -> Iterator[Verdict]:
    whole = sum(border.cases for border in chosen)
    tasks: list[tuple[int, list[str | Case]]] = []
    for number, border in enumerate(chosen):
        cases = -(-given.cases * border.cases // whole)
        for start in range(0, cases, BATCH):
            ends = min(start + BATCH, cases)
            tasks.append((number, [f"{given.seed}/{n}" for n in range(start, ends)]))
    for path in sorted(Path(given.replay).glob("*.json")) if given.replay else ():
        case = Case.from_json(path.read_text())
        tasks += [(n, [case]) for n, border in enumerate(chosen) if border.name == case.border]
    seen: Counter[tuple[str, ...]] = Counter()
    run = partial(_batch, chosen, folder)
    with ProcessPoolExecutor(given.workers, mp_context=get_context("fork")) as pool:
        for verdicts in pool.map(run, *zip(*tasks, strict=True)):
            for one in verdicts:
                if not one:
                    _tell(one, seen, Path(given.keep))
                yield one


def _batch(
    chosen: list[Border], folder: Path, number: int, given: list[str | Case]
) -> list[Verdict]:
    """The verdicts on cases that are given, or drawn by their seeds."""
    border = chosen[number]
    template = _template(folder, border)
    cases = [one if isinstance(one, Case) else draw(border, template, one) for one in given]
    place = folder / "cases" / f"{number}-{cases[0].seed.replace('/', '-')}"
    return list(batch(border, template, place, cases))


def _tell(one: Verdict, seen: Counter[tuple[str, ...]], keep: Path) -> None:
    """Each distinct failure once, and kept as a file."""
    alike = re.sub(r"0x[0-9a-f]+|\d+|/\S+|'[^']*'|\"[^\"]*\"", "_", one.said)[:70]
    key = (one.case.border, one.what, alike)
    seen[key] += 1
    if seen[key] > 1:
        return
    print(f"{one.case.border} {one.case.seed}: {one.what}: {one.said[:400]!r}", flush=True)
    keep.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", f"{one.case.border}-{one.what}-{one.case.seed}").strip("-")
    (keep / f"{name}.json").write_text(one.case.as_json())


def table(verdicts: list[Verdict]) -> str:
    """Markdown: a line for each border."""
    kinds = (
        "died",
        "hung",
        "traceback",
        "unforeseen",
        "status",
        "lines",
        "long",
        "no name",
        "outside",
    )
    lines = ["| border | cases | " + " | ".join(kinds) + " |", "|---|" + "---:|" * (len(kinds) + 1)]
    names = list(dict.fromkeys(one.case.border for one in verdicts))
    for name in [*names, ""]:
        own = [one for one in verdicts if name in ("", one.case.border)]
        counts = Counter(one.what for one in own)
        cells = [name or "all", str(len(own)), *(str(counts[kind]) for kind in kinds)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
