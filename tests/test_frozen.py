"""Runs that commit bd641bf began are resumed, scored and exported as they were by it.

Only what users see is used: commands in processes of their own, and files. `frozen/make.py` says
what is held on to. The networks of these runs are drawn numbers, the same on every machine, so that
identities are held to the letter. What networks answer is held as rows, and where rows are made
anew up to what rounding does to them.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rayseg.config import RunConfig, read_toml
from tests.frozen import weights

# the commands run when the first test asks; the limit is for a machine that does much else
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

FROZEN = Path(__file__).parent / "frozen"
ROADS = ("demo", "boxes_synthetic")
EXPORTS = (
    ("demo", "advcam+label_crf", "voc"),
    ("boxes_synthetic", "bbam+box_crf", "coco"),
    ("boxes_synthetic", "bbam+box_crf", "coco_polygons"),
    ("boxes_synthetic", "instances/truth", "coco_results"),
)
SHORTENED = {
    "demo": ("seeds/advcam", "masks/advcam+label_crf", "predictions/advcam+label_crf"),
    "boxes_synthetic": ("box_maps/bbam", "masks/bbam+box_crf", "instances/bbam+box_crf"),
}
"""Folders that lose their first shard before a run is resumed."""
REMOVED = {
    "demo": ("seeds/cam", "masks/cam+label_crf", "segmenters/truth", "predictions/truth"),
    "boxes_synthetic": ("mask_rcnn/truth", "instances/truth"),
}
"""Folders that are gone then."""
LEARNT = ("predictions/truth", "instances/truth")
"""Folders of rows that follow from a training that is made anew."""
PLAIN = ("--engine=plain",)
"""Of all commands but one, since Ray takes long to start; engines give the same rows."""
DIGEST = re.compile(r"[0-9a-f]{64}")
ROUNDING = 0.05
"""What another machine's rounding may do to a score between 0 and 1 where rows are made anew."""


def thaw(road: str, run: Path) -> Path:
    """A copy of a frozen run that works here: paths in its manifest, weights in its trainings."""
    shutil.copytree(FROZEN / road, run, ignore=shutil.ignore_patterns("exports", "weights.json"))
    file = run / "manifest" / "manifest.parquet"
    table = pq.read_table(file)
    for column in ("path", "mask_path"):
        paths = [path.replace("RUN", str(run), 1) for path in table.column(column).to_pylist()]
        place = table.column_names.index(column)
        table = table.set_column(place, table.schema.field(column), pa.array(paths))
    pq.write_table(table, file)
    for name in digests(road):
        kind, folder = Path(name).stem, Path(name).parent
        network = json.loads((FROZEN / "networks" / f"{kind}.json").read_text())
        weights.write(run / name, network, seed=folder.as_posix())
    return run


def digests(road: str) -> dict[str, str]:
    """Of the weights of a run, by their places in it."""
    return json.loads((FROZEN / road / "weights.json").read_text())


def shorten(road: str, run: Path) -> None:
    """Leaves a run as a job that was killed does: folders without some rows, or not there yet."""
    for name in SHORTENED[road]:
        min((run / name).glob("part-*.parquet")).unlink()
        (run / name / "run.json").write_text(json.dumps(facts(run / name) | {"counts": None}))
    for name in REMOVED[road]:
        shutil.rmtree(run / name)


NOW_FIT_THE_DATA = {
    "/classifier/epochs: 5 before, 0 now",
    "/segmenter/iterations: 30000 before, 0 now",
}
"""Defaults that have since become 0: as before on as much data as they were made for."""

# Commands


@dataclass(frozen=True)
class Ended:
    """A command that has ended, and the folder that it worked on."""

    run: Path
    status: int
    said: str


def rayseg(job: str, road: str, run: Path, *flags: str) -> Ended:
    """Runs a command with the preset of that road, cut to small sizes."""
    files = [FROZEN / "presets" / f"{road}.toml", FROZEN / "cuts" / f"{road}.toml"]
    given = [f"--config={file}" for file in files]
    command = [sys.executable, "-m", "rayseg.cli", job, *given, f"--run={run}", *PLAIN, *flags]
    there = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=there)
    return Ended(run, done.returncode, done.stdout + done.stderr)


def read_every_file() -> list[Any]:
    """All presets, and each frozen run's own file of every key, as configurations."""
    files = [*sorted((FROZEN / "presets").glob("*.toml")), *sorted(FROZEN.glob("*/run.toml"))]
    return [read_toml(str(file), RunConfig()) for file in files]


def judge(road: str, run: Path) -> dict[str, Ended]:
    """Scores a whole run and exports it, one command after the other."""
    done = {f"score {road}": rayseg("score", road, run)}
    for masks, kind in [pair for of, *pair in EXPORTS if of == road]:
        flags = (f"--masks={masks}", f"--format={kind}", f"--out={run}/exports/{kind}/{masks}")
        done[f"export {masks} {kind}"] = rayseg("export", road, run, *flags)
    return done


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All commands by name, two at a time: most of each is waiting for processes to start."""
    there = tmp_path_factory.mktemp("frozen")
    for road in ROADS:
        thaw(road, there / "whole" / road)
        shorten(road, thaw(road, there / "begun" / road))
    alone = {
        f"resume {road}": partial(rayseg, "run", road, there / "begun" / road, *flags)
        for road, flags in zip(ROADS, (("--engine=ray",), ()), strict=True)
    }
    alone["new"] = partial(rayseg, "run", "boxes_synthetic", there / "new", "--until=masks")
    alone["other settings"] = partial(
        rayseg, "train-classifier", "demo", thaw("demo", there / "other"), "--classifier.epochs=3"
    )
    with ThreadPoolExecutor(2) as pool:
        running = {name: pool.submit(command) for name, command in alone.items()}
        judged = [pool.submit(judge, road, there / "whole" / road) for road in ROADS]
        done = {name: one.result() for name, one in running.items()}
        return done | judged[0].result() | judged[1].result()


# What is compared


def differences(frozen: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where what was is not what is; keys and files that were added do not count."""
    if isinstance(frozen, dict) and isinstance(now, dict):
        for key, value in frozen.items():
            yield from differences(value, now.get(key, "no such key"), f"{place}/{key}")
    elif isinstance(frozen, list) and isinstance(now, list) and len(frozen) == len(now):
        for number, pair in enumerate(zip(frozen, now, strict=True)):
            yield from differences(*pair, f"{place}/{number}")
    elif isinstance(frozen, float) and isinstance(now, float | int):
        if not np.isclose(now, frozen, rtol=1e-12, atol=1e-12, equal_nan=True):
            yield f"{place}: {frozen} before, {now} now"
    elif frozen != now:
        yield f"{place}: {frozen} before, {now} now"


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def identities(run: Path) -> dict[str, Any]:
    """What each folder of a run was made from, by its place in the run."""
    return {
        file.parent.relative_to(run).as_posix(): facts(file.parent)["config"]
        for file in sorted(run.rglob("run.json"))
    }


def without_digests(identity: Any) -> Any:
    """An identity with a word in place of each digest, since a training's differ by machine."""
    if isinstance(identity, dict):
        return {key: without_digests(value) for key, value in identity.items()}
    return "digest" if isinstance(identity, str) and DIGEST.fullmatch(identity) else identity


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a folder by id; each is there once."""
    found = read_shards(folder.glob("part-*.parquet"))
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id


def read_shards(files: Iterable[Path]) -> list[dict[str, Any]]:
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def folders_of_rows(run: Path) -> list[str]:
    return sorted({p.parent.relative_to(run).as_posix() for p in run.glob("*/*/part-*.parquet")})


def kept_rows(road: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The folders of a run that was shortened, with the rows that were left in each."""
    for name in set(folders_of_rows(FROZEN / road)).difference(REMOVED[road]):
        files = sorted((FROZEN / road / name).glob("part-*.parquet"))[name in SHORTENED[road] :]
        yield name, {row["id"]: row for row in read_shards(files)}


def scores(run: Path) -> dict[str, Any]:
    return json.loads((run / "scores.json").read_text())


def content(file: Path) -> Any:
    """What an exported file says: labels, parsed JSON, or lines."""
    if file.suffix == ".png":
        return np.asarray(Image.open(io.BytesIO(file.read_bytes()))).tolist()
    return json.loads(file.read_text()) if file.suffix == ".json" else file.read_text()


# Identities


@pytest.mark.parametrize("road", ROADS)
def test_the_weights_are_those_that_were_frozen(road, ended):
    run = ended[f"score {road}"].run
    made = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in digests(road)}
    assert made == digests(road)


def test_a_new_run_has_the_identities_of_before(ended):
    assert ended["new"].status == 0, ended["new"].said
    before, now = (
        without_digests(identities(run)) for run in (FROZEN / "boxes_synthetic", ended["new"].run)
    )
    for name in ("manifest", "classifier", "detector", "box_maps/bbam", "masks/bbam+box_crf"):
        assert now[name] == before[name], name


@pytest.mark.parametrize("road", ROADS)
def test_a_resumed_run_has_the_identities_of_before(road, ended):
    before, now = identities(FROZEN / road), identities(ended[f"resume {road}"].run)
    for name, identity in before.items():
        # the digest of a training that was made anew is another one
        plain = without_digests if name in LEARNT else dict
        assert plain(now[name]) == plain(identity), name


def test_other_settings_are_refused(ended):
    refused = ended["other settings"]
    assert refused.status == 1
    assert re.search(r"classifier\.epochs .*\b1\b.*\b3\b", refused.said), refused.said


# Resuming


@pytest.mark.parametrize("road", ROADS)
def test_a_begun_run_is_resumed(road, ended):
    assert ended[f"resume {road}"].status == 0, ended[f"resume {road}"].said


@pytest.mark.parametrize("road", ROADS)
def test_a_finished_training_is_left_alone(road, ended):
    run = ended[f"resume {road}"].run
    for name, digest in digests(road).items():
        folder = Path(name).parent
        again = hashlib.sha256((run / name).read_bytes()).hexdigest() != digest
        assert again == (folder.as_posix() in REMOVED[road]), name
        before, now = facts(FROZEN / road / folder), facts(run / folder)
        assert now["done"]
        for key in () if again else ("epochs", "curve", "judged", "seconds"):
            assert now.get(key) == before.get(key)


@pytest.mark.parametrize("road", ROADS)
def test_rows_that_were_there_stay_and_the_others_are_made(road, ended):
    run = ended[f"resume {road}"].run
    for name, kept in kept_rows(road):
        found, whole = rows(run / name), rows(FROZEN / road / name)
        assert found.keys() == whole.keys(), name
        assert not list(differences(kept, found, name))
        assert (len(kept) < len(whole)) == (name in SHORTENED[road])
    for name in set(REMOVED[road]).intersection(folders_of_rows(FROZEN / road)):
        assert rows(run / name).keys() == rows(FROZEN / road / name).keys()


@pytest.mark.parametrize("road", ROADS)
def test_rows_made_anew_are_like_those_of_before(road, ended):
    run = ended[f"resume {road}"].run
    for name in set(folders_of_rows(FROZEN / road)).difference(LEARNT):
        before, now = rows(FROZEN / road / name), rows(run / name)
        for id_, row in before.items():
            for column in ("status", "error", "note", "height", "width", "classes"):
                assert now[id_].get(column) == row.get(column), (name, id_, column)
        assert agreement(before, now) > 1 - ROUNDING, name


def agreement(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> float:
    """One less the mean difference of maps, or the share of pixels whose labels are the same."""
    parts = []
    for id_, row in before.items():
        for old, new in zip(row.get("maps", []), now[id_].get("maps", []), strict=True):
            parts.append(1 - np.abs(pixels(old) - pixels(new)).ravel() / 255)
        if row.get("labels"):
            parts.append((pixels(row["labels"]) == pixels(now[id_]["labels"])).ravel())
    return float(np.concatenate(parts).mean())


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.float64)


@pytest.mark.parametrize("road", ROADS)
def test_a_resumed_run_is_scored_as_before(road, ended):
    before, now = scores(FROZEN / road), scores(ended[f"resume {road}"].run)
    assert before.keys() <= now.keys()
    for name in before.keys() - LEARNT:
        for key in ("images", "objects"):
            assert now[name].get(key) == before[name].get(key), (name, key)
        for key in ("miou", "precision", "recall", "ap50"):
            if before[name].get(key) is not None:
                assert now[name][key] == pytest.approx(before[name][key], abs=ROUNDING), (name, key)


# Scores and exports


@pytest.mark.parametrize("road", ROADS)
def test_scores_are_those_of_before(road, ended):
    scored = ended[f"score {road}"]
    assert scored.status == 0, scored.said
    assert not list(differences(scores(FROZEN / road), scores(scored.run)))
    assert (scored.run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(("road", "masks", "kind"), EXPORTS)
def test_exports_are_those_of_before(road, masks, kind, ended):
    done = ended[f"export {masks} {kind}"]
    assert done.status == 0, done.said
    before = FROZEN / road / "exports" / kind / masks
    now = done.run / "exports" / kind / masks
    files = [file.relative_to(before) for file in before.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert not list(differences(content(before / file), content(now / file), str(file)))


# Configurations


def test_presets_and_configurations_of_before_are_read():
    assert all(one != RunConfig() for one in read_every_file())


@pytest.mark.parametrize("road", ROADS)
def test_a_preset_sets_every_key_to_what_it_was(road, ended):
    before, now = (
        tomllib.loads((run / "run.toml").read_text())
        for run in (FROZEN / road, ended[f"resume {road}"].run)
    )
    found = differences(before | {"run": str(ended[f"resume {road}"].run)}, now)
    assert {*found} <= NOW_FIT_THE_DATA
