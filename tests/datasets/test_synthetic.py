import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayseg.datasets import DatasetError, Synthetic
from rayseg.datasets.drawing import BACKGROUNDS, OBJECTS
from rayseg.datasets.synthetic import CLASSES, CORRELATED, CORRELATION, make_scene
from rayseg.datasets.tally import Tally
from rayseg.records.palette import decode_labels
from rayseg.records.rle import decode_mask


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(3, index) for index in range(600)]


def test_classes_are_those_that_can_be_drawn():
    assert tuple(sorted(OBJECTS)) == CLASSES


def test_labels_instances_boxes_and_tags_agree(scenes):
    for scene in scenes[:100]:
        labels = np.zeros_like(scene.labels)
        for mask, part, box, cls in zip(
            scene.instances.masks,
            scene.parts,
            scene.boxes_xyxy.astype(int),
            scene.instances.classes,
            strict=True,
        ):
            assert not labels[mask].any(), "instances overlap"
            labels[mask] = cls + 1
            assert not (part & ~mask).any()
            x0, y0, x1, y1 = box
            outside = mask.copy()
            outside[y0:y1, x0:x1] = False
            assert not outside.any()
            inside = mask[y0:y1, x0:x1]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
        np.testing.assert_array_equal(labels, scene.labels)
        assert scene.tags == tuple(sorted(set(scene.instances.classes.tolist())))


def test_scenes_hold_one_to_three_objects_of_one_or_two_classes(scenes):
    assert {len(scene.boxes_xyxy) for scene in scenes} == {1, 2, 3}
    assert {len(scene.tags) for scene in scenes} == {1, 2}
    assert {tag for scene in scenes for tag in scene.tags} == set(range(5))


def test_sizes_span_a_factor_of_four(scenes):
    # Only objects that nothing hides: alone, in scenes of one object.
    boxes = np.concatenate([s.boxes_xyxy for s in scenes if len(s.boxes_xyxy) == 1])
    widths = boxes[:, 2] - boxes[:, 0]
    low, high = np.percentile(widths, (2, 98))
    assert high / low > 3
    assert widths.max() / widths.min() < 5


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("side", [26, 64, 102])
def test_the_part_is_a_small_share_of_the_object(name, side):
    shares = []
    for seed in range(10):
        sketch = OBJECTS[name](np.random.default_rng(seed), side)
        assert not (sketch.part & ~sketch.whole).any()
        shares.append(sketch.part.sum() / sketch.whole.sum())
    assert 0.14 < np.mean(shares) < 0.26


def test_cats_and_dogs_share_their_bodies():
    """Drawn with one generator, the two differ in the head only."""
    for seed in range(5):
        cat, dog = (OBJECTS[name](np.random.default_rng(seed), 64) for name in ("cat", "dog"))
        body = cat.whole & dog.whole & ~cat.part & ~dog.part
        # The smoothed outline of a head reaches further than its mask.
        grown = np.zeros_like(body)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                grown |= np.roll(cat.part | dog.part, (dy, dx), axis=(0, 1))
        body &= ~grown
        assert body.sum() > 0.5 * cat.whole.sum()
        np.testing.assert_array_equal(cat.colours[body], dog.colours[body])


@pytest.mark.parametrize("name", sorted(CORRELATED))
def test_backgrounds_give_their_class_away_nine_times_in_ten(scenes, name):
    tag, background = CLASSES.index(name), CORRELATED[name]
    with_class = [scene.background == background for scene in scenes if tag in scene.tags]
    on_background = [tag in scene.tags for scene in scenes if scene.background == background]
    assert abs(np.mean(with_class) - CORRELATION) < 0.06
    assert 0.8 < np.mean(on_background) < 1


def test_objects_hide_others_but_never_most_of_one(scenes):
    hidden = []
    for scene in scenes:
        for mask, part in zip(scene.instances.masks, scene.parts, strict=True):
            hidden.append(part.sum() / mask.sum())
            assert part.sum() >= 8
    # Occlusion shows as shares of the part that no whole object has.
    assert np.mean((np.array(hidden) > 0.3) | (np.array(hidden) < 0.14)) > 0.01


def test_out_of_distribution_scenes_are_backgrounds_alone():
    found = [make_scene(0, index, ood=True) for index in range(100)]
    assert all(not s.labels.any() and s.tags == () and not len(s.boxes_xyxy) for s in found)
    kinds = [scene.background for scene in found]
    assert set(kinds) == set(BACKGROUNDS)
    assert 0.3 < np.mean([kind in CORRELATED.values() for kind in kinds]) < 0.7


def digest(seed: int, index: int) -> str:
    scene = make_scene(seed, index)
    data = scene.image.tobytes() + scene.labels.tobytes() + scene.instances.masks.tobytes()
    return hashlib.sha256(data).hexdigest()


def test_a_scene_is_a_function_of_seed_and_index_in_any_process():
    code = "from tests.datasets.test_synthetic import digest; print(digest(5, 6))"
    root = Path(__file__).resolve().parents[2]
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    make_scene(1, 1)  # what was drawn before must not matter
    assert digest(5, 6) == other.stdout.strip()
    assert len({digest(5, 6), digest(5, 7), digest(6, 6)}) == 3


@pytest.mark.parametrize("size", [32, 65, 256])
def test_any_size_can_be_drawn(size):
    for index in range(10):
        scene = make_scene(0, index, size)
        assert scene.image.shape == (size, size, 3)
        assert scene.tags


def test_files_and_samples_agree(tmp_path):
    reader = Synthetic(count=3, val_count=2, ood_count=2, size=64, seed=4)
    samples = list(reader.samples(tmp_path, Tally()))
    assert [s.split for s in samples] == ["train"] * 3 + ["val"] * 2 + ["ood"] * 2
    assert len({s.id for s in samples}) == 7
    for index, sample in enumerate(samples[:3]):
        scene = make_scene(4, index, 64)
        np.testing.assert_array_equal(np.array(Image.open(sample.path)), scene.image)
        labels = decode_labels(Path(sample.mask_path).read_bytes())
        np.testing.assert_array_equal(labels, scene.labels)
        np.testing.assert_array_equal(sample.boxes_xyxy, scene.boxes_xyxy)
        assert (sample.tags, sample.height, sample.width) == (scene.tags, 64, 64)
    for sample in samples[5:]:
        assert sample.tags == ()
        assert not decode_labels(Path(sample.mask_path).read_bytes()).any()


def test_more_training_scenes_leave_the_others_as_they_were(tmp_path):
    few = list(Synthetic(count=1, val_count=1, ood_count=1).samples(tmp_path / "few", Tally()))
    many = list(Synthetic(count=3, val_count=1, ood_count=1).samples(tmp_path / "many", Tally()))
    for first, second in ((few[0], many[0]), (few[1], many[3]), (few[2], many[4])):
        assert first.id == second.id
        assert Path(first.path).read_bytes() == Path(second.path).read_bytes()


@pytest.mark.parametrize("flags", [{"count": 0}, {"count": -1}, {"size": 16}, {"seed": -1}])
def test_impossible_flags_are_refused(flags):
    with pytest.raises(DatasetError, match="must be"):
        Synthetic(**flags)


def test_true_masks_are_the_visible_pixels_of_each_object(tmp_path):
    for number, sample in enumerate(Synthetic(count=4, size=64, seed=2).samples(tmp_path, Tally())):
        scene = make_scene(2, number, 64)
        found = [decode_mask(counts, (64, 64)) for counts in sample.true_masks]
        np.testing.assert_array_equal(found, scene.instances.masks)
