import numpy as np
import pytest

from rayseg.refine import SaliencyAgreement


def _literal(labels, saliency, threshold):
    """Pixel by pixel, as the dissertation says it."""
    kept = labels.copy()
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            salient = saliency[y, x] / 255 >= threshold
            if labels[y, x] == 255:
                continue
            if labels[y, x] > 0 and not salient:
                kept[y, x] = 255
            if labels[y, x] == 0 and salient:
                kept[y, x] = 255
    return kept


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_what_brute_force_finds(seed, threshold):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 7, 254, 255], np.uint8), (5, 5))
    saliency = rng.choice(np.array([0, 50, 51, 127, 128, 254, 255], np.uint8), (5, 5))
    found = SaliencyAgreement(threshold)(labels, saliency)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, _literal(labels, saliency, threshold))


def test_a_pixel_at_the_threshold_is_salient():
    labels = np.array([[1, 1, 0, 0]], np.uint8)
    saliency = np.array([[51, 50, 51, 50]], np.uint8)  # 51 / 255 is .2
    assert SaliencyAgreement(0.2)(labels, saliency).tolist() == [[1, 255, 255, 0]]
    saliency = np.array([[128, 127, 128, 127]], np.uint8)  # .502 and .498
    assert SaliencyAgreement()(labels, saliency).tolist() == [[1, 255, 255, 0]]


def test_full_agreement_changes_nothing():
    labels = np.random.default_rng(0).choice(np.array([0, 3, 255], np.uint8), (6, 9))
    saliency = np.where(labels == 0, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(SaliencyAgreement()(labels, saliency), labels)


def test_what_is_kept_of_a_noisy_mask_is_more_often_right():
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 60), np.uint8)
    truth[8:30, 10:40] = 2
    noisy = np.where(rng.random(truth.shape) < 0.2, np.where(truth, 0, 2), truth).astype(np.uint8)
    salient = np.where(rng.random(truth.shape) < 0.1, truth == 0, truth > 0)
    kept = SaliencyAgreement()(noisy, (255 * salient).astype(np.uint8))
    for label in (0, 2):
        before = (truth[noisy == label] == label).mean()
        after = (truth[kept == label] == label).mean()
        assert after > before + 0.03
        # both are right on .8 * .9 of its pixels, and wrong alike on .2 * .1 of the others
        share = (truth == label).mean()
        expected = 0.72 * share / (0.72 * share + 0.02 * (1 - share))
        assert after == pytest.approx(expected, abs=0.01)
    assert (kept != 255).mean() == pytest.approx(0.74, abs=0.03)


def test_inputs_are_not_changed():
    labels, saliency = np.full((2, 2), 1, np.uint8), np.zeros((2, 2), np.uint8)
    for array in (labels, saliency):
        array.flags.writeable = False
    assert (SaliencyAgreement()(labels, saliency) == 255).all()
    assert (labels == 1).all()
    assert (saliency == 0).all()


LABELS = np.zeros((4, 5), np.uint8)


@pytest.mark.parametrize(
    ("labels", "saliency", "message"),
    [
        (LABELS.astype(int), LABELS, r"labels must be uint8 \(h, w\), got int64 \(4, 5\)"),
        (LABELS, LABELS / 255, r"saliency must be uint8 \(h, w\), got float64 \(4, 5\)"),
        (LABELS, np.zeros((4, 5, 3), np.uint8), r"saliency must .* got uint8 \(4, 5, 3\)"),
        (LABELS, LABELS.T, r"\(4, 5\) pixels \(h, w\), got \(5, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(labels, saliency, message):
    with pytest.raises(ValueError, match=message):
        SaliencyAgreement()(labels, saliency)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_without_meaning_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be in"):
        SaliencyAgreement(threshold)
