"""Edges and affinities that walks went by: beside the masks, on the page, and checked."""

import re
from pathlib import Path

from rayseg.config import CheckConfig
from rayseg.plain import PlainEngine
from rayseg.report.page import write_report
from rayseg.steps.check import check
from rayseg.steps.masks import refine_seeds
from rayseg.store import (
    MASKS_SCHEMA,
    VIEW_STRIDES,
    WALKED_SCHEMA,
    Folder,
    read_rows,
    read_shard,
    shard_columns,
    shard_names,
    sign_rows,
    unpack_grid,
    write_shard,
)
from tests.steps.learned import refining

ENGINE = PlainEngine()


def test_masks_have_what_their_walk_went_by(learned):
    for name, own, cells in (("irnet", "edges", 18), ("psa", "affinities", 9)):
        for row in read_rows(Folder(learned[0].run) / "masks" / f"cam+{name}"):
            assert unpack_grid(row[own]).shape == (cells, cells)
            assert [row[one] for one in VIEW_STRIDES if one != own] == [b""]
    for row in read_rows(Folder(learned[0].run) / "masks" / "cam+label_crf"):
        assert not {*VIEW_STRIDES} & row.keys()


def test_the_page_shows_seeds_masks_edges_and_affinities_side_by_side(learned):
    page = (Path(learned[0].run) / "report.html").read_text()
    shown = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert [one for one in shown if one.startswith(("edges", "affin"))]
    row = ["image", "truth", "cam", "cam+affinity_labels", "cam+irnet", "edges of cam+irnet"]
    row += ["cam+label_crf", "cam+psa", "affinities of cam+psa"]
    assert shown[: len(row)] == row
    assert "Edges: white where" in page


def test_masks_that_were_begun_without_edges_go_on_without_them(learned_copy):
    """As a run that an earlier version began, and that was killed."""
    folder = Folder(learned_copy.run) / "masks" / "cam+irnet"
    names = MASKS_SCHEMA.names
    rows = [{key: row[key] for key in names} for row in read_rows(folder)]
    for name in shard_names(folder):
        folder.delete(name)
    earlier = [{**row, "digest": row["follows"]} for row in rows[:3]]
    write_shard(folder, sign_rows(earlier, MASKS_SCHEMA))
    refine_seeds(refining(learned_copy), ENGINE)
    assert all(shard_columns(folder, name) == names for name in shard_names(folder))
    again = {row["id"]: row["labels"] for row in read_rows(folder)}
    assert again == {row["id"]: row["labels"] for row in rows}
    write_report(Folder(learned_copy.run))
    page = (Path(learned_copy.run) / "report.html").read_text()
    assert "<figcaption>cam+irnet</figcaption>" in page
    assert "<figcaption>edges of" not in page
    assert "<figcaption>affinities of" in page


def test_a_check_looks_at_edges_too(learned_copy):
    assert check(CheckConfig(run=learned_copy.run), ENGINE).left_out == 0
    folder = Folder(learned_copy.run) / "masks" / "cam+irnet"
    name = shard_names(folder)[0]
    rows = read_shard(folder, name).to_pylist()
    spoiled = [{**row, "edges": row["edges"][:40], "digest": row["follows"]} for row in rows]
    assert write_shard(folder, sign_rows(spoiled, WALKED_SCHEMA)) == name
    said = "\n".join(check(CheckConfig(run=learned_copy.run), ENGINE).lines)
    assert "its edges are no PNG" in said
