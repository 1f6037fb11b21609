import json
import re

import numpy as np
import pytest

from rayseg.records.palette import VOC_PALETTE
from rayseg.report.contents import Score, reading_order
from rayseg.report.wording import summarize
from tests.report.pages import DASH, examples, make_predicted_scores, make_scores, read_page

SENTENCE = "advcam+crf reaches 61.7 % mIoU, 21.7 points above cam (seeds)."


def _write(run, scores):
    run.write("scores.json", json.dumps(scores).encode())


def _rows(page):
    return {row[0]: row[1:] for table in page.tables for row in table if row}


def test_predictions_have_a_table_of_their_own_truth_first(trained_page):
    page = trained_page
    assert len(page.tables[0]) == 1 + len(make_scores())
    titles, *rows = page.tables[1]
    assert titles == [
        *("trained on", "mIoU", "of full supervision", "of full supervision, present"),
        *("precision", "recall", "F1", "images"),
    ]
    assert rows == [
        ["truthfull supervision", "80.0", DASH, DASH, "90.0", "85.0", "87.5", "3"],
        ["advcam+label_crf", "68.0", "85.0", "90.0", "78.0", "73.0", "75.5", "3"],
        ["advcam+label_crf+crf", "66.0", "80.0", "90.0", "76.0", "71.0", "73.5", "3"],
    ]


def test_the_highest_are_of_their_own_table_and_never_full_supervision(trained_page):
    page = trained_page
    assert page.highest[0] == ["61.7", "71.7", "66.7", "69.2"]
    # both share the highest of the last column of ratios
    assert page.highest[1] == ["68.0", "85.0", "90.0", "78.0", "73.0", "75.5", "90.0"]


def test_it_is_said_that_the_images_are_others(trained):
    text = read_page(trained).text
    assert "Segmenters on split “val”" in text
    assert "other images than those of seeds and masks (split “train”)" in text
    same = {name: entry | {"split": "train"} for name, entry in make_predicted_scores().items()}
    _write(trained, make_scores() | same)
    assert "other images" not in read_page(trained).text


def test_ratios_have_columns_only_where_there_are_some(trained):
    scores = make_predicted_scores()
    for entry in scores.values():
        del entry["of_full_supervision"]
    _write(trained, scores)
    page = read_page(trained)
    assert page.tables[0][0] == [*("trained on", "mIoU", "precision", "recall", "F1", "images")]
    assert "of full supervision" not in page.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "A segmenter trained on the masks of advcam+label_crf reaches 68.0 % mIoU on val, "
            "85.0 % of full supervision.",
        ),
        (
            {"predictions/advcam+label_crf": {"miou": 0.5}},
            "A segmenter trained on the masks of advcam+label_crf, with a CRF on top, reaches "
            "66.0 % mIoU on val, 80.0 % of full supervision.",
        ),
        (
            {"predictions/advcam+label_crf": {"trained_on": {"images": 20, "full": 400}}},
            "A segmenter trained on the masks of advcam+label_crf reaches 68.0 % mIoU on val, "
            "85.0 % of full supervision, which was trained on other images.",
        ),
        (
            {"predictions/advcam+label_crf": {"of_full_supervision": None}},
            "A segmenter trained on the masks of advcam+label_crf reaches 68.0 % mIoU on val.",
        ),
        (
            {f"predictions/advcam+label_crf{crf}": {"miou": None} for crf in ("", "+crf")},
            "A segmenter trained on true masks reaches 80.0 % mIoU on val.",
        ),
    ],
)
def test_sentence_ends_with_the_best_segmenter_without_true_masks(changes, said):
    facts = make_scores() | make_predicted_scores()
    names = sorted(facts, key=reading_order)
    scores = [Score(name, facts[name] | changes.get(name, {})) for name in names]
    assert summarize(scores) == f"{SENTENCE} {said}"
    assert summarize(scores[-3:]) == said


def test_masks_are_not_measured_against_predictions():
    facts = make_scores() | make_predicted_scores()
    scores = [Score(name, facts[name]) for name in ("masks/advcam+crf", "predictions/truth")]
    assert summarize(scores).startswith("advcam+crf reaches 61.7 % mIoU. A segmenter")


def test_of_grown_labels_it_says_what_they_grew_from():
    score = Score("predictions/advcam+dsrg+crf", {"miou": 0.5, "split": "val"})
    assert summarize([score]).startswith(
        "A segmenter trained on labels that grew from advcam, with a CRF on top, reaches 50.0 %"
    )


def test_colours_of_segmenters_begin_after_those_of_masks_with_a_pair(trained_page):
    table = trained_page.html.partition('<table id="predictions"')[2].partition("</table>")[0]
    assert re.findall(r"--series-(\d)", table) == ["4", "5", "6"]
    legend = trained_page.html.partition("Training of the segmenters")[2].partition("</ul>")[0]
    assert re.findall(r"--series-(\d)", legend) == ["4", "5"]


def test_page_begins_with_the_sentence(trained_page):
    assert f"{SENTENCE} A segmenter trained on the masks of" in trained_page.text


def test_figures_of_seeds_and_masks_are_as_without_predictions(trained):
    with_predictions = trained.read("scores.json")
    drawn = []
    for scores in (json.dumps(make_scores()).encode(), with_predictions):
        trained.write("scores.json", scores)
        read_page(trained, max_images=1)
        svgs = re.findall(r"<svg.*?</svg>", trained.read("report.html").decode(), flags=re.DOTALL)
        labels = [re.search('aria-label="(.*?)"', svg)[1] for svg in svgs]
        drawn.append(dict(zip(labels, svgs, strict=True)))
    without, both = drawn
    assert both.keys() - without.keys() == {
        "IoU of each class by what the segmenter was trained on"
    }
    assert {name: both[name] for name in without} == without


def test_val_images_show_each_prediction_where_it_lies(trained_page):
    page = trained_page
    assert sorted(examples(page, "val")) == ["val0", "val1", "val2"]
    # val0 is a dog (label 2); 48x64 is shown at 240x320, so stored pixel (y, x) covers 5x5
    for caption, border in (("trained on truth: ", 0), ("trained on advcam+label_crf, CRF: ", 6)):
        layer = next(
            layer
            for layer in page.images(caption)
            if (layer[60, 60] == [*VOC_PALETTE[2], 150]).all()
        )
        rows, columns = np.nonzero((layer == [*VOC_PALETTE[2], 150]).all(axis=-1))
        low, bottom, right = 5 * border, 5 * (24 - border) - 1, 5 * (32 - border) - 1
        edge = 1 if border else 0  # the outline, which the picture's own edge is not
        assert (rows.min(), rows.max()) == (low + edge, bottom - 1)
        assert (columns.min(), columns.max()) == (low + edge, right - 1)


def test_each_gallery_has_its_own_images_and_results(trained_page):
    page = trained_page
    assert all(name.startswith("img") for name in examples(page, "images"))
    captions = {a["alt"].partition(":")[0] for tag, a in page.elements if tag == "img"}
    assert {"cam", "advcam", "advcam+crf", "truth"} <= captions
    assert {
        "trained on truth",
        "trained on advcam+label_crf",
        "trained on advcam+label_crf, CRF",
    } <= captions
    shown = len([a for tag, a in page.elements if tag == "img" and a["alt"].startswith("cam: ")])
    assert shown == sum(len(examples(page, part)) for part in ("images", "best", "worst"))
    assert "unreadable <here>" in page.text


def test_best_and_worst_of_val_are_those_of_the_best_segmenter(trained_page):
    page = trained_page
    assert "Best and worst by the mIoU of advcam+label_crf in each image." in page.text
    assert examples(page, "val-best") == ["val0"]
    assert examples(page, "val-worst") == ["val1", "val2"]
    assert examples(page, "best") == ["img0", "img1"]


def test_another_split_may_be_shown_with_predictions(trained):
    page = read_page(trained, val_split="nowhere")
    assert examples(page, "val") == []
    assert "0 in “nowhere”" in page.text


def test_images_left_out_of_training_are_said_with_the_reason(trained_page):
    page = trained_page
    assert _rows(page)["img5"] == [
        "left out · all of it is <ignored>",
        "segmenters/advcam+label_crf",
    ]
    assert "2 images were left out when the segmenter was trained on advcam+label_crf." in page.text
    assert "trained on truth." not in page.text
    legend = page.text.partition("Training of the segmenters")[2]
    assert re.match(
        r" truth : 6 images advcam\+label_crf : 4 images , 2 images left out , not finished",
        re.sub(r"([:,])", r" \1", legend).replace("  ", " "),
    )


def test_failures_of_predictions_are_counted_with_the_others(trained_page):
    page = trained_page
    assert _rows(page)["val1"] == ["error · unreadable <here>", "predictions/truth"]
    assert "2 images failed." in page.text


def test_cost_has_segmenters_between_masks_and_predictions(trained_page):
    page = trained_page
    rows = _rows(page)
    names = [row[0] for row in page.tables[-1][1:]]
    assert names[-6:] == [
        "masks/advcam+crf",
        *("segmenters/truth", "segmenters/advcam+label_crf"),
        *("predictions/truth", "predictions/advcam+label_crf", "predictions/advcam+label_crf+crf"),
    ]
    assert rows["segmenters/advcam+label_crf"][0] == "4"
    assert rows["segmenters/advcam+label_crf"][4] == "1 min 15 s"
    assert rows["predictions/truth"][:6] == ["3", "2", "0", "1", "14 s", "0.21"]


def test_notes_of_val_are_counted_beside_those_of_train(trained_page):
    # img0 in both folders of seeds, val0 in all three of predictions
    assert _rows(trained_page)["grey converted to RGB"] == ["2"]


def test_configurations_are_in_the_order_in_which_the_parts_are_made(trained_page):
    assert re.findall("<details><summary>(.*?)</summary>", trained_page.html) == [
        *("classifier", "seeds/cam", "seeds/advcam", "masks/advcam+crf"),
        *("segmenters/truth", "segmenters/advcam+label_crf"),
        *("predictions/truth", "predictions/advcam+label_crf", "predictions/advcam+label_crf+crf"),
    ]
    assert '"labels": "advcam+label_crf"' in trained_page.text


def test_versions_of_segmenters_are_among_the_others(trained):
    facts = {"versions": {"torch": "0.0.1 of the segmenter"}}
    (trained / "segmenters/truth").write("run.json", json.dumps(facts).encode())
    assert ", 0.0.1 of the segmenter" in read_page(trained, max_images=1).text


def test_every_drawing_has_a_name_of_its_own(trained_page):
    drawings = [attrs for tag, attrs in trained_page.elements if tag == "svg"]
    names = {attrs["aria-label"] for attrs in drawings}
    assert len(names) == len(drawings) == 6


def test_room_is_kept_for_both_galleries(trained, monkeypatch):
    monkeypatch.setattr("rayseg.report.page.MAX_PICTURE_CHARACTERS", 600_000)
    page = read_page(trained)
    assert 0 < sum(map(len, re.findall(r"data:image/[^\")]+", page.html))) < 600_000
    assert examples(page, "worst") == ["img2", "img3"]
    assert examples(page, "val-worst") == ["val1", "val2"]
    assert len(re.findall(r"\d+ more left out to keep this page small", page.text)) == 2


@pytest.mark.parametrize("name", ["truth", "advcam+label_crf"])
@pytest.mark.parametrize("facts", [{}, {"curve": None, "judged": [], "left_out": None}])
def test_a_segmenter_that_has_only_begun_still_has_a_page(trained, name, facts):
    (trained / "segmenters" / name).write("run.json", json.dumps(facts).encode())
    assert "not finished" in read_page(trained).text


def test_a_missing_manifest_is_said(trained):
    (trained / "manifest").remove()
    assert "The run has no manifest yet" in read_page(trained).text


@pytest.mark.parametrize(
    ("part", "heading"),
    [("segmenters", "Training of the segmenters"), ("predictions", "What the segmenters predict")],
)
def test_a_missing_part_has_no_section(trained, part, heading):
    assert heading in read_page(trained).html
    (trained / part).remove()
    assert heading not in read_page(trained).html


def test_predictions_that_are_not_scored_are_shown_all_the_same(trained):
    _write(trained, make_scores())
    page = read_page(trained)
    assert "<h2>Segmenters by class</h2>" not in page.html
    assert len(examples(page, "val")) == 3
    assert SENTENCE in page.text
    assert "A segmenter trained" not in page.text
