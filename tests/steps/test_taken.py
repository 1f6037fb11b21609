from rayseg.datasets.tally import Tally
from rayseg.steps.taken import tell_taken


def test_the_table_says_what_was_taken_and_each_reason_why_not():
    tally = Tally()
    tally.take("images", 4)
    tally.take("boxes", 12)
    for name in ("a.jpg", "b.jpg"):
        tally.leave_out("images", "file not found", name)
    tally.leave_out("annotations", "bbox is no box", "a.json: image 3: annotation 9")
    tally.note("outlines", "points are pairs", "a.json: annotation 1")
    told = tell_taken(tally.facts())
    cells = {line.split()[0]: line.split()[1:] for line in told.lines[1:8]}
    assert cells == {
        "images": ["4", "2"], "tags": ["0"], "boxes": ["12"], "outlines": ["0"], "crowds": ["0"],
        "masks": ["0"], "annotations": ["0", "1"],
    }  # fmt: skip
    assert told.lines[8:] == [
        "left out: 2 images: file not found, such as a.jpg",
        "left out: 1 annotations: bbox is no box, such as a.json: image 3: annotation 9",
        "changed: 1 outlines: points are pairs, such as a.json: annotation 1",
    ]
    assert told.left_out == 3


def test_what_was_only_changed_is_no_failure():
    tally = Tally()
    tally.note("outlines", "points are pairs", "annotation 1")
    assert tell_taken(tally.facts()).left_out == 0


def test_that_all_objects_are_crowds_is_said():
    tally = Tally()
    tally.take("crowds", 3)
    assert "all 3 objects are crowds" in tell_taken(tally.facts()).lines[-1]
    tally.take("boxes")
    assert "crowds:" not in tell_taken(tally.facts()).lines[-1]


def test_a_manifest_of_an_older_version_has_nothing_to_tell():
    assert tell_taken({}).lines == []
