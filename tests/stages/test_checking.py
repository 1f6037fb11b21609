import pickle

import numpy as np
import pytest

from rayseg.labels import Truths
from rayseg.records.palette import encode_labels
from rayseg.stages import CheckLabels


@pytest.fixture
def checked(run):
    """The stage, after a journey, and rows of the manifest."""
    manifest, rows = run
    return pickle.loads(pickle.dumps(CheckLabels(Truths(manifest)))), rows


def test_good_labels_have_no_problem(checked):
    stage, rows = checked
    good = {"problem": "", "unlabelled": False}
    assert stage(rows) == [{"id": f"i{n}"} | good for n in range(3)]


def test_a_problem_is_of_its_own_row_and_order_is_kept(checked, tmp_path):
    stage, rows = checked
    (tmp_path / "m1.png").write_bytes(encode_labels(np.full((18, 22), 255, np.uint8)))
    reason = "must have a pixel that is not ignored (255), got only those"
    assert stage(rows[::-1]) == [
        {"id": "i2", "problem": "", "unlabelled": False},
        {"id": "i1", "problem": f"true mask {tmp_path}/m1.png {reason}", "unlabelled": True},
        {"id": "i0", "problem": "", "unlabelled": False},
    ]


def test_labels_must_have_the_manifests_size(checked):
    stage, rows = checked
    (row,) = stage([rows[0] | {"height": 22, "width": 18}])
    assert row["problem"].endswith("m0.png must be (22, 18) as its image, got (18, 22)")
    assert not row["unlabelled"]


def test_an_image_without_labels_has_a_problem(checked):
    stage, rows = checked
    (row,) = stage([rows[0] | {"id": "strange"}])
    assert row["problem"] == "true mask of 'strange' is missing"


def test_a_store_that_does_not_answer_is_a_problem_of_one_line():
    class Silent:
        ids = frozenset("a")

        def name(self, id_):
            return id_

        def read(self, id_, size_hw):
            raise OSError("timed out\nafter 3 s")

    (row,) = CheckLabels(Silent())([{"id": "a", "height": 1, "width": 1}])
    assert row["problem"] == "timed out after 3 s"
