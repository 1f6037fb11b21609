"""Which images of a run are shown, and in which order, against a slow second answer."""

import threading
from itertools import product

import numpy as np
import pytest

from rayseg.report.view.cache import Recent
from rayseg.report.view.results import ResultFolder
from rayseg.report.view.runs import ViewedRun
from rayseg.report.view.table import ALL, ORDERS, STATUSES, UNTAGGED, ImageTable, Selection, select
from tests.report.viewed import CLASSES, RESULT, id_of, labels_of, make_run, status_of, tags_of

NUMBER = 40


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    run = ViewedRun(make_run(tmp_path_factory.mktemp("run"), NUMBER))
    run.tally(RESULT).wait()
    return run


def worst_first(order):
    """A key that sorts numbers of images by the rows themselves."""

    def key(number):
        if status_of(number) != "ok":
            return 1.0
        labels, tags = labels_of(number), tags_of(number)
        if order == "undecided":
            return -float((labels == 255).mean())
        return -float(np.mean([not (labels == tag + 1).any() for tag in tags]))

    return key


def wanted(number, selection):
    tags = tags_of(number)
    index = selection.of_class
    return (
        (index == ALL or (index == UNTAGGED and not tags) or index in tags)
        and selection.split in ("", id_of(number).partition("/")[0])
        and selection.status in ("", status_of(number))
        and selection.search.lower() in id_of(number).lower()
    )


@pytest.mark.parametrize("order", ORDERS)
def test_filters_and_orders_equal_those_of_a_loop_over_all_rows(viewed, order):
    asked = product((ALL, UNTAGGED, 0, 2), ("", "train", "val"), ("", "ok", "error"), ("", "img 1"))
    for of_class, split, status, search in asked:
        selection = Selection(of_class, split, status, search, order)
        expected = [n for n in range(NUMBER) if wanted(n, selection)]
        if order != "id":
            expected.sort(key=worst_first(order))
        found = select(viewed.table, viewed.result(RESULT).judged, selection)
        assert found.tolist() == expected, selection


def test_a_split_that_is_not_there_has_no_images(viewed):
    asked = Selection(split="nowhere")
    assert not len(select(viewed.table, viewed.result(RESULT).judged, asked))


@pytest.mark.parametrize("wrong", [{"order": "size"}, {"status": "fine"}])
def test_an_order_or_a_status_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Selection(**wrong)


def test_images_are_numbers_and_ids(viewed):
    table = viewed.table
    assert [table.tags_of(n) for n in range(NUMBER)] == [list(tags_of(n)) for n in range(NUMBER)]
    assert (table.size_hw == (48, 64)).all()
    held = {name: value for name, value in vars(table).items() if isinstance(value, np.ndarray)}
    assert sum(one.nbytes for one in held.values()) < 40 * NUMBER


def test_classes_are_counted_as_a_loop_over_all_masks_counts_them(viewed):
    tally = viewed.tally(RESULT).as_dict()
    assert (tally["done"], tally["total"], tally["why"]) == (NUMBER, NUMBER, "")
    for index, found in enumerate(tally["classes"]):
        mine = [n for n in range(NUMBER) if status_of(n) == "ok" and index in tags_of(n)]
        shares = [(labels_of(n) == index + 1).mean() for n in mine]
        assert found["tagged"] == len(mine)
        assert found["found"] == sum(share > 0 for share in shares)
        assert found["covered"] == pytest.approx(np.mean(shares))


def test_a_tally_that_is_stopped_counts_no_further(tmp_path):
    run = ViewedRun(make_run(tmp_path))
    run.asked = float("inf")  # somebody waits for something else, for ever
    tally = run.tally(RESULT)
    run.close()
    tally.wait()
    assert tally.done == 0


def test_what_a_mask_shows_is_counted(viewed):
    seen = viewed.seen(RESULT, id_of(4))
    assert (seen.status, seen.undecided) == ("ok", 16 / 48)
    assert seen.shares == ((2, 0.5),)
    assert [mark.text for mark in seen.marks] == ["Co", "?"]
    cow, unknown = seen.marks
    assert labels_of(4)[int(cow.y * 48), int(cow.x * 64)] == 2
    assert labels_of(4)[int(unknown.y * 48), int(unknown.x * 64)] == 255
    failed = viewed.seen(RESULT, id_of(2))
    assert (failed.status, failed.why) == ("error", "cut <short> & empty")
    assert failed.undecided is None


def test_opening_a_folder_writes_nothing(tmp_path):
    run = make_run(tmp_path)
    (tmp_path / "my run" / RESULT / "_index.pq").unlink()
    before = sorted(tmp_path.rglob("*"))
    place_of = {id_of(n): n for n in range(10)}
    opened = ResultFolder.open(run, RESULT, place_of)
    assert [STATUSES[one] for one in opened.status] == [status_of(n) for n in range(10)]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_is_read_column_by_column(tmp_path):
    table = ImageTable.read(make_run(tmp_path))
    assert table.classes == tuple(CLASSES)
    assert table.ids == [id_of(n) for n in range(10)]


def test_what_is_held_is_bounded_and_the_oldest_goes_first():
    made = []
    held = Recent(10, len)
    for key in ("a", "b", "a", "c", "b", "large"):
        held.get(key, lambda key=key: made.append(key) or (b"x" * (99 if key == "large" else 4)))
        assert held.weight <= 10
    assert made == ["a", "b", "c", "b", "large"]


def test_what_two_ask_for_at_once_is_made_once():
    made, waiting = [], threading.Event()
    held = Recent(10, len)

    def make():
        made.append(waiting.wait(10))
        return b"x"

    asking = [threading.Thread(target=held.get, args=("key", make)) for _ in range(3)]
    for one in asking:
        one.start()
    waiting.set()
    for one in asking:
        one.join()
    assert made == [True]


def test_what_could_not_be_made_is_tried_again():
    held = Recent(10, len)
    with pytest.raises(ZeroDivisionError):
        held.get("key", lambda: 1 // 0)
    assert held.get("key", lambda: b"x") == b"x"
