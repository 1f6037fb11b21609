import re

import pytest

from rayseg.records.progress import read_progress
from rayseg.report import figures
from rayseg.report.contents import Score
from rayseg.report.segmenters import TrainedSegmenter


def _score(iou):
    return Score("masks/a", {"per_class": {name: {"iou": value} for name, value in iou.items()}})


def _texts(svg):
    return re.findall(r"<text[^>]*>(.*?)</text>", svg, flags=re.DOTALL)


def test_classes_are_sorted_by_the_final_method_from_the_top():
    final = _score({"low": 0.1, "high": 0.9, "unknown": None, "middle": 0.5})
    svg, left_out = figures.class_bars([_score({"low": 1.0}), final], final)
    names = {"low", "high", "unknown", "middle"}
    assert [text for text in _texts(svg) if text in names] == ["high", "middle", "low", "unknown"]
    assert left_out == []


def test_each_series_has_its_letter_at_its_bars_and_lines():
    final = _score({"low": 0.1, "high": 0.9})
    svg, _ = figures.class_bars([final, final], final, 2)
    assert {"c", "d"} <= set(_texts(svg))
    svg = figures.training_curves([_segmenter("truth"), _segmenter("a")], [0, 27])
    assert {"a", "28"} <= set(_texts(svg))


def test_of_too_many_classes_the_middle_is_left_out():
    final = _score({f"c{place:02}": 1 - place / 100 for place in range(40)})
    svg, left_out = figures.class_bars([final], final)
    assert left_out == [f"c{place:02}" for place in range(15, 25)]
    assert {f"c{place:02}" for place in range(40)} - set(left_out) <= set(_texts(svg))


@pytest.mark.parametrize("name", ["$x^2$", "$", "猫", "a\tb"])
def test_a_class_may_have_any_name(name):
    final = _score({name: 0.5})
    assert name in _texts(figures.class_bars([final], final)[0])


def test_the_best_threshold_skips_what_is_unknown():
    sweep = {"thresholds": [0.1, 0.2, 0.3], "miou": [None, 0.4, 0.3]}
    assert figures.best_threshold(Score("seeds/cam", {"sweep": sweep})) == (0.2, 0.4)
    assert figures.best_threshold(Score("seeds/cam", {})) is None
    assert figures.best_threshold(Score("seeds/cam", {"sweep": {"miou": [None]}})) is None


def test_the_threshold_that_was_used_is_marked_on_the_curve_it_was_chosen_on():
    sweep = {"thresholds": [0.1, 0.2], "miou": [0.5, 0.4], "miou_over": [0.6, 0.7]}
    used = Score("seeds/cam", {"sweep": sweep, "threshold": 0.2})
    assert figures.best_threshold(used) == (0.2, 0.7)
    assert "mIoU of the chosen classes, %" in _texts(figures.threshold_curve([used]))
    other = Score("seeds/cam", {"sweep": sweep, "threshold": 0.1})
    assert figures.best_threshold(other) == (0.1, 0.6)


def test_a_curve_of_unknown_numbers_is_still_drawn():
    epochs = [{"epoch": 1, "loss": None, "map": float("nan")}, {}]
    assert "<svg" in figures.classifier_curves(read_progress({"epochs": epochs}))
    assert "<svg" in figures.threshold_curve([Score("seeds/cam", {})])


def test_a_classifier_is_drawn_by_iteration_and_by_epoch_where_it_was_counted_so():
    curve = [{"iteration": n, "loss": 1 / n} for n in (20, 40)]
    judged = [{"iteration": 30, "map": 0.5, "f1": 0.4}]
    new = read_progress({"curve": curve, "judged": judged})
    assert "iteration" in _texts(figures.classifier_curves(new))
    old = read_progress({"epochs": [{"loss": 1.0, "map": 0.5, "f1": 0.4}]})
    assert "epoch" in _texts(figures.classifier_curves(old))


def _segmenter(name, judged=()):
    curve = [{"iteration": 10 * n, "loss": 2 / n} for n in (1, 2, 3)]
    points = [{"iteration": n, "miou": miou} for n, miou in judged]
    return TrainedSegmenter(f"segmenters/{name}", {"curve": curve, "judged": points})


def _lines(svg, place):
    return len(re.findall(rf"<path[^>]*fill: none; stroke: var\(--series-{place}\)", svg))


def test_each_segmenter_is_a_line_in_its_colour():
    segmenters = [_segmenter("truth", judged=[(10, 0.2), (30, 0.4)]), _segmenter("a")]
    svg = figures.training_curves(segmenters, [4, 7])
    assert {"loss", "mIoU, %", "iteration"} <= set(_texts(svg))
    assert _lines(svg, 4) == 2
    assert _lines(svg, 7) == 1
    assert _lines(svg, 0) == 0


def test_without_judgements_only_the_loss_is_drawn():
    svg = figures.training_curves([_segmenter("a")], [0])
    assert "mIoU, %" not in _texts(svg)
    assert _lines(svg, 0) == 1


def test_bars_of_a_later_table_take_later_colours():
    final = _score({"cat": 0.5})
    svg, _ = figures.class_bars([final, final], final, 6)
    assert [place for place in range(8) if f"fill: var(--series-{place})" in svg] == [6, 7]
