from rayseg.report.contents import Score, final_prediction, final_score, reading_order
from rayseg.report.segmenters import TrainedSegmenter, judged_images

MIOU = {"seeds/cam": 0.4, "masks/advcam+label_crf": 0.6, "predictions/truth": 0.9}


def _scores(**mious):
    return [Score(name, {"miou": miou}) for name, miou in mious.items()]


def test_reading_order_is_that_of_making_and_measures_come_first():
    names = [
        "seeds/cam",
        "seeds/advcam",
        "masks/cam+label_crf",
        "masks/advcam+label_crf",
        "predictions/truth",
        "predictions/truth+crf",
        "predictions/cam+label_crf",
        "predictions/advcam+label_crf",
        "predictions/advcam+label_crf+crf",
    ]
    names_by_letter = sorted(names)
    assert sorted(names_by_letter, key=reading_order) == names


def test_final_masks_are_never_predictions():
    assert final_score(_scores(**MIOU)).name == "masks/advcam+label_crf"
    assert final_score(_scores(**{"predictions/truth": 0.9})) is None
    assert final_score(_scores(**{"seeds/cam": 0.4, "predictions/a": 0.9})).name == "seeds/cam"


def test_final_prediction_is_the_best_without_true_masks():
    weak = {"predictions/a": 0.5, "predictions/b": 0.7, "predictions/c": None}
    assert final_prediction(_scores(**MIOU, **weak)).name == "predictions/b"
    assert final_prediction(_scores(**MIOU)).name == "predictions/truth"
    assert final_prediction(_scores(**{"seeds/cam": 0.4})) is None


def test_crf_is_told_from_the_refiner_in_a_name():
    plain, refined = (Score(f"predictions/advcam+label_crf{crf}", {}) for crf in ("", "+crf"))
    assert (plain.trained_on, plain.has_crf) == ("advcam+label_crf", False)
    assert (refined.trained_on, refined.has_crf) == ("advcam+label_crf", True)
    assert Score("predictions/truth+crf", {}).is_full_supervision
    assert not Score("seeds/truth", {}).is_full_supervision


def test_points_of_a_curve_skip_what_is_unknown():
    curve = [{"iteration": 20, "loss": 3.0}, {"iteration": 40, "loss": None}, {"loss": 1.0}, {}]
    one = TrainedSegmenter(
        "segmenters/a", {"curve": curve, "judged": [{"iteration": 40, "miou": 0.5}]}
    )
    assert one.losses == ([20], [3.0])
    assert one.mious == ([40], [0.5])
    assert judged_images([one]) == 0
