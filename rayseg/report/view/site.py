"""What is served of one run or of two beside each other: an answer for each address.

An image is asked for by its number and a folder of results by a name that the run has, so that
nothing of a request is ever a path.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rayseg.report.view.pictures import Pictures, photo_file
from rayseg.report.view.runs import ViewedRun
from rayseg.report.view.table import ALL, ORDERS, STATUSES, UNTAGGED, Judged, Selection, select

PER_PAGE = 24
"""Images of one page of the gallery."""
_HERE = Path(__file__).parent
_FILES = {
    "palette.css": (_HERE.parent / "palette.css", "text/css"),
    "view.css": (_HERE / "view.css", "text/css"),
    "view.js": (_HERE / "view.js", "text/javascript"),
}


@dataclass(frozen=True)
class Answer:
    """What a request is answered with."""

    status: int
    kind: str
    body: bytes


Fields = Mapping[str, str]
"""The fields of a request by their names."""


class Site:
    """All that is served, by address.

    Args:
        runs: the run, and where there is one the run beside it, whose images are found by id.

    Raises:
        ValueError: the runs have other classes, so that their masks cannot be read alike.
    """

    def __init__(self, runs: Sequence[ViewedRun]):
        self.runs = tuple(runs)
        for one in self.runs[1:]:
            if one.table.classes != self.runs[0].table.classes:
                have = (f"{run.run} has {', '.join(run.table.classes)}" for run in (runs[0], one))
                raise ValueError(
                    f"runs beside each other must have the same classes: {'; '.join(have)}"
                )
        self.pictures = Pictures()
        self._answers: dict[str, Callable[[Fields], Answer]] = {
            "": self._page,
            "api/list": self._list,
            "api/image": self._image,
            "api/tally": self._tally,
            "thumb": self._thumb,
            "photo": self._photo,
            "mask": self._mask,
        }

    def prepare(self) -> None:
        """Reads what the first view needs and begins to make its pictures, to have them at once."""
        self._page({})
        first = self.runs[0]
        result = next(iter(first.results()), "")
        self._list({"result": result})
        self.pictures.make_ahead(first, result, first.table.ids[:PER_PAGE])

    def close(self) -> None:
        """Ends what works in the background."""
        self.pictures.close()
        for run in self.runs:
            run.close()

    def answer(self, address: str, asked: Fields) -> Answer:
        """The answer to a request; an error is an answer of one line too.

        Args:
            address: what follows the token, such as ``api/list``.
            asked: the request's fields.
        """
        if address in _FILES:
            path, kind = _FILES[address]
            return Answer(200, kind, path.read_bytes())
        make = self._answers.get(address)
        if make is None:
            return _refusal(404, "there is nothing at this address")
        if address != "api/tally":
            for run in self.runs:
                run.asked = time.monotonic()
        try:
            return self._made(make, asked)
        except Exception as error:  # an answer, and no traceback
            return _refused(error)

    def _made(self, make: Callable[[Fields], Answer], asked: Fields) -> Answer:
        """The answer; where a folder's shards are others now, after a second look."""
        try:
            return make(asked)
        except FileNotFoundError:
            for run in self.runs:
                run.renew()
            return make(asked)

    def _page(self, asked: Fields) -> Answer:
        del asked
        for run in self.runs:
            run.renew()
        page = self._template.render(facts=self._facts(), title=self.runs[0].name)
        return Answer(200, "text/html", page.encode())

    @cached_property
    def _template(self) -> Any:
        environment = Environment(
            loader=FileSystemLoader(_HERE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("view.html")

    def _facts(self) -> dict[str, Any]:
        """What the page's script begins with."""
        first = self.runs[0]
        chips = [first.names.chip(label) for label in range(1, len(first.table.classes) + 1)]
        return {
            "runs": [
                {"name": one.name, "place": one.run.location, "results": one.results()}
                for one in self.runs
            ],
            "classes": [asdict(chip) for chip in chips],
            "splits": first.table.splits,
            "statuses": STATUSES,
            "orders": ORDERS,
            "untagged": UNTAGGED,
            "images": len(first.table),
        }

    def _list(self, asked: Fields) -> Answer:
        """One page of the images that are asked for."""
        first, result = self.runs[0], asked.get("result", "")
        wanted = _selection(asked)
        opened = first.result(result) if result else None
        if opened is None:  # nothing to sort by
            wanted = _selection({**asked, "status": "", "order": "id"})
        judged = opened.judged if opened else Judged(np.zeros(len(first.table), np.int32))
        numbers = select(first.table, judged, wanted)
        pages = max(1, -(-len(numbers) // PER_PAGE))
        page = min(max(_number(asked, "page"), 0), pages - 1)
        shown = numbers[page * PER_PAGE : (page + 1) * PER_PAGE]
        results = [result, asked.get("beside", "")]
        return _json(
            {
                "total": len(numbers),
                "page": page,
                "pages": pages,
                "rows": [self._row(number, results) for number in shown.tolist()],
                "command": _export_command(first, result, wanted.split),
            }
        )

    def _row(self, number: int, results: Sequence[str]) -> dict[str, Any]:
        first = self.runs[0]
        id_ = first.table.ids[number]
        of_runs = zip(self.runs, results, strict=False)
        return {
            "n": number,
            "id": id_,
            "split": first.table.splits[first.table.split_of[number]],
            "tags": first.table.tags_of(number),
            "size": first.table.size_hw[number].tolist(),
            "seen": [self._seen(run, result, id_) for run, result in of_runs],
        }

    def _seen(self, run: ViewedRun, result: str, id_: str) -> dict[str, Any] | None:
        """What a run's mask of an image shows; None where it has no such image or no masks."""
        if id_ not in run.place_of or not result:
            return None
        missing = run.result(result).missing[run.place_of[id_]]
        known = None if np.isnan(missing) else float(missing)
        return asdict(run.seen(result, id_)) | {"missing": known, "result": result}

    def _image(self, asked: Fields) -> Answer:
        """One image in full."""
        number = self._image_number(asked)
        id_ = self.runs[0].table.ids[number]
        return _json(
            self._row(number, ()) | {"runs": [self._in_full(run, id_) for run in self.runs]}
        )

    def _in_full(self, run: ViewedRun, id_: str) -> dict[str, Any] | None:
        if id_ not in run.place_of:
            return None
        sample, example = run.sample(id_), run.example(id_)
        return {
            "photo": example.photo,
            "missing": example.missing,
            "panels": [asdict(panel) | {"labels": []} for panel in example.panels],
            "seeds": list(run.seeds_facts(id_)),
            "results": [self._seen(run, name, id_) for name in run.results()],
            "file": sample.file_name or sample.path.rpartition("/")[2],
            "bytes": sample.image_bytes,
            "stored": list(sample.photo_hw if sample.seen_side else (sample.height, sample.width)),
        }

    def _tally(self, asked: Fields) -> Answer:
        """How far the count of tags against masks is."""
        return _json(self.runs[0].tally(asked.get("result", "")).as_dict())

    def _thumb(self, asked: Fields) -> Answer:
        run, id_ = self._asked_image(asked)
        return Answer(200, "image/jpeg", self.pictures.small(run, asked.get("result", ""), id_))

    def _photo(self, asked: Fields) -> Answer:
        return Answer(200, *photo_file(*self._asked_image(asked)))

    def _mask(self, asked: Fields) -> Answer:
        run, id_ = self._asked_image(asked)
        png = run.labels_png(asked.get("result", ""), id_)
        if not png:
            raise LookupError(f"{id_} has no mask in {asked.get('result', '')}")
        return Answer(200, "image/png", png)

    def _asked_image(self, asked: Fields) -> tuple[ViewedRun, str]:
        place = _number(asked, "run")
        if not 0 <= place < len(self.runs):
            raise LookupError(f"there are {len(self.runs)} runs, got run {place}")
        return self.runs[place], self.runs[0].table.ids[self._image_number(asked)]

    def _image_number(self, asked: Fields) -> int:
        number, images = _number(asked, "n"), len(self.runs[0].table)
        if not 0 <= number < images:
            raise LookupError(f"images have numbers 0 to {images - 1}, got {number}")
        return number


class _WrongFieldsError(ValueError):
    """A field of a request has no such value."""


def _number(asked: Fields, name: str) -> int:
    try:
        return int(asked.get(name, "0"))
    except ValueError:
        raise _WrongFieldsError(f"{name} must be a whole number") from None


def _selection(asked: Fields) -> Selection:
    given = {name: asked.get(name, "") for name in ("split", "status", "search")}
    index = _number(asked, "class") if asked.get("class") else ALL
    try:
        return Selection(index, **given, order=asked.get("order") or "id")
    except ValueError as error:
        raise _WrongFieldsError(str(error)) from None


def _export_command(run: ViewedRun, result: str, split: str) -> str:
    """What writes the masks that are looked at as files."""
    if not result:
        return ""
    words = ["--run", run.run.location, "--masks", result.removeprefix("masks/"), "--out", "masks"]
    words += ["--split", split] if split else []
    return " ".join(["rayseg export", *map(quote, words)])


def _json(value: Any) -> Answer:
    return Answer(200, "application/json", json.dumps(value, allow_nan=False).encode())


def _refused(error: Exception) -> Answer:
    if isinstance(error, LookupError):
        return _refusal(404, str(error.args[0] if error.args else error))
    if isinstance(error, _WrongFieldsError):
        return _refusal(400, str(error))
    if isinstance(error, OSError | ValueError):
        return _refusal(500, str(error))
    return _refusal(500, f"{type(error).__name__}: {error} (unforeseen)")


def _refusal(status: int, why: str) -> Answer:
    return Answer(status, "application/json", json.dumps({"error": " ".join(why.split())}).encode())
