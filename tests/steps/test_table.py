"""Scores as a person reads them: a table each of pixels, objects and instances."""

from rayseg.steps.table import score_table

OBJECTS = {
    "split": "train", "objects": 7, "mean_iou": 0.5, "iou_over_50": 0.25, "small": None,
    "medium": 0.4, "large": 0.61,
}  # fmt: skip
INSTANCES = {
    "ap": 0.1, "ap25": 0.5, "ap50": 0.3, "ap70": 0.2, "ap75": 0.125, "small": None, "medium": 0.1,
    "large": 0.2, "abo": 0.55, "boxes": {"ap50": 0.6},
}  # fmt: skip


def test_objects_have_their_overlaps_in_per_cent_without_the_sizes_that_none_has():
    titles, row = score_table({"objects/bbam+box_crf": OBJECTS})
    assert titles.split() == ["split", "objects", "mask", "IoU", "over", "0.5", "medium", "large"]
    assert row.split() == ["objects/bbam+box_crf", "train", "7", "50.0", "25.0", "40.0", "61.0"]


def test_objects_from_tags_have_their_precisions_beside():
    found = {"ap": 0.1, "ap50": 0.3, "abo": 0.55, "boxes": {"ap50": 0.6}}
    tags = {"split": "train", "objects": 9, "found": found}
    titles, first, second = score_table({"objects/bbam": OBJECTS, "objects/cam": tags})
    assert titles.split()[-5:] == ["AP", "AP50", "ABO", "box", "AP50"]
    assert first.split()[-1] == "61.0"
    assert second.split()[1:] == ["train", "9", "10.0", "30.0", "55.0", "60.0"]


def test_instances_have_their_precisions_and_shares_of_full_supervision():
    weak = INSTANCES | {"of_full_supervision": {"ap50": 0.75, "abo": 0.9}}
    titles, first, second = score_table({"instances/bbam": weak, "instances/truth": INSTANCES})
    assert titles.startswith(" " * len("instances/truth"))
    assert titles.split()[:8] == ["AP", "AP25", "AP50", "AP70", "AP75", "APm", "APl", "ABO"]
    masks = ["10.0", "50.0", "30.0", "20.0", "12.5", "10.0", "20.0", "55.0"]
    assert first.split()[1:] == [*masks, "75.0", "90.0", "60.0"]
    assert second.split()[1:] == [*masks, "60.0"]
    assert len(first) == len(second) == len(titles)


def test_without_true_masks_instances_have_the_precision_of_boxes():
    titles, row = score_table({"instances/bbam": {"boxes": {"ap50": 0.6}}})
    assert titles.split() == ["box", "AP50"]
    assert row.split() == ["instances/bbam", "60.0"]


def test_each_kind_has_a_table_of_its_own():
    scores = {"instances/truth": INSTANCES, "objects/bbam": OBJECTS}
    lines = score_table(scores)
    assert [line.split()[0] for line in lines] == ["split", "objects/bbam", "AP", "instances/truth"]


def test_no_score_at_all_is_said():
    assert score_table({}) == [
        "scores: none, no true mask in the split or no seeds and masks in the run"
    ]
