"""Tables that people save: CSV with any usual separator, a header, and rows that may be wrong."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rayseg.datasets.base import DatasetError, finite
from rayseg.datasets.reading import cleaned, has_invisible, lines_of, read_text
from rayseg.datasets.tally import Tally

_SEPARATORS = (",", ";", "\t", "|")
_EXCELS_FIRST_LINE = re.compile(r"sep=(.)(?:\r\n|\n|\r)", re.IGNORECASE)


@dataclass(frozen=True)
class TableRow:
    """What a row has in the asked columns.

    Attributes:
        where: file and line.
        image: the cell of the first column, without blanks at its ends.
        cells: those of the other columns, without invisible characters; empty where one lacks.
        written: all cells of the row, to know one that is written twice.
        extra: the cell of a column that a file need not have; empty where it lacks.
    """

    where: str
    image: str
    cells: tuple[str, ...]
    written: tuple[str, ...]
    extra: str = ""


@dataclass(frozen=True)
class _Record:
    """A row as it is written: the line that it begins at, its number of lines, its cells."""

    line: int
    lines: int
    cells: list[str]
    fault: str = ""


def read_rows(
    path: Path,
    columns: Sequence[Sequence[str]],
    way_out: str,
    tally: Tally,
    extra: Sequence[str] = (),
) -> list[TableRow]:
    """Reads the asked columns of each row that is not blank; a wrong row costs itself.

    The separator is the first of comma, semicolon, tab and bar at which the header has all
    columns. A file in which quotes do not fit together is read line by line.

    Args:
        path: of the file.
        columns: the names that each may have; the first column is that of images.
        way_out: what mends a row of too many cells.
        tally: gets what is left out.
        extra: the names that one more column may have, which a file need not have.

    Raises:
        DatasetError: no text, no header with the columns, or no good row.
    """
    text = read_text(path)
    marked = _EXCELS_FIRST_LINE.match(text)
    lines = lines_of(text)[1 if marked else 0 :]
    separators = (marked[1],) if marked else _SEPARATORS
    separator, header, places = _header(lines, separators, columns, path)
    places = [*places, next((header.index(name) for name in extra if name in header), -1)]
    rows, first_fault = [], ""
    for record in _records(lines, separator):
        where = f"{path}:{record.line + bool(marked)}"
        cells = _without_empty_end(record.cells, len(header))
        fault = record.fault or _fault(cells, len(header), places[0], way_out)
        if fault:
            tally.leave_out("rows", fault, where, record.lines)
            first_fault = first_fault or f"; {where}: row is left out, {fault}"
        elif any(map(cleaned, cells)):
            rows.append(_row(where, cells, places, tally))
    if not rows:
        raise DatasetError(
            f"{path} has no row below its header, expected one an image{first_fault}"
        )
    return rows


def corners(row: TableRow, tally: Tally) -> tuple[float, float, float, float] | None:
    """The box of a row whose cells are a class and four sides; None, and counted, for no numbers.

    A comma is read as the point of a number, as a European Excel writes it.
    """
    try:
        x1, y1, x2, y2 = (finite(re.sub(r"(?<=\d),(?=\d)", ".", cell)) for cell in row.cells[1:])
    except ValueError:
        text = "without four finite numbers x1, y1, x2, y2"
        tally.leave_out("boxes", text, f"{row.where}: {list(row.cells[1:])}")
        return None
    return x1, y1, x2, y2


def _header(
    lines: list[str], separators: Sequence[str], columns: Sequence[Sequence[str]], path: Path
) -> tuple[str, list[str], list[int]]:
    """The separator, the names of the columns, and the place of each that is asked for."""
    lacking: list[tuple[int, list[str], Sequence[str]]] = []
    for separator in separators:
        try:
            cells = next(csv.reader(lines[:1], delimiter=separator), [])
        except csv.Error as error:
            raise DatasetError(f"{path}:1: header is not CSV ({error}): check it") from None
        names = [cleaned(name).lower() for name in cells]
        places = [next((names.index(n) for n in asked if n in names), -1) for asked in columns]
        if -1 not in places:
            return separator, names, places
        lacking.append((places.count(-1), names, columns[places.index(-1)]))
    _, names, asked = min(lacking, key=lambda one: one[0])
    raise DatasetError(
        f"{path}:1: expected a header with a column {' or '.join(asked)}, got {names}"
    )


def _records(lines: list[str], separator: str) -> Iterator[_Record]:
    """The rows below the header."""
    try:
        yield from list(_parsed(lines, separator))
    except csv.Error:
        for number, line in enumerate(lines[1:], start=2):
            try:
                yield _Record(number, 1, next(csv.reader([line], delimiter=separator, strict=True)))
            except StopIteration:
                continue
            except csv.Error as error:
                yield _Record(number, 1, [], f"not CSV ({error}): check its quotes")


def _parsed(lines: list[str], separator: str) -> Iterator[_Record]:
    """The rows of a file whose quotes fit together.

    Raises:
        csv.Error: they do not.
    """
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
    next(reader)
    before = reader.line_num
    for cells in reader:
        number = reader.line_num - before
        fault = "with a line break inside a cell: check its quotes" if number > 1 else ""
        yield _Record(before + 1, number, cells, fault)
        before = reader.line_num


def _without_empty_end(cells: list[str], width: int) -> list[str]:
    while len(cells) > width and not cleaned(cells[-1]):
        cells = cells[:-1]
    return cells


def _fault(cells: list[str], width: int, image: int, way_out: str) -> str:
    if len(cells) > width:
        return f"of {len(cells)} cells where the header has {width}: {way_out}"
    named = image < len(cells) and cleaned(cells[image])
    return "without the name of an image" if any(map(cleaned, cells)) and not named else ""


def _row(where: str, cells: list[str], places: list[int], tally: Tally) -> TableRow:
    image, *others, extra = (cells[at] if 0 <= at < len(cells) else "" for at in places)
    for cell in filter(has_invisible, others):
        text = "with invisible characters, which are dropped"
        tally.note("cells", text, f"{where}: {cell!a}")
    written = tuple(map(cleaned, cells))
    return TableRow(where, image.strip(), tuple(map(cleaned, others)), written, cleaned(extra))
