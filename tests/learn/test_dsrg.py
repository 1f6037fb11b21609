"""What DSRG's steps are made of: warped images, seeds that begin anew or stay grown."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.labels import Cues, Truths
from rayseg.learn import DSRGTraining, WarpedImages, Work, Worker
from rayseg.learn.dsrg import Cued
from rayseg.nets.inputs import normalise
from rayseg.nets.seed_memory import SeedMemory
from rayseg.store import Folder, read_manifest
from tests.learn.tiny import CLASSES, scenes, store, tiny

RESTART = tiny("dsrg", seeds="restart")


def cued(classes=((0,),), mirrored=(False,)):
    """One cue of class 0 at the left of an image of 4x4 pixels."""
    cues = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    cues[0, 1, 0] = 1
    return Cued(cues, list(classes), [0], [0], list(mirrored))


def sure_of(*columns):
    """Probabilities of class 0, high in some columns."""
    planes = np.full((1, 3, 4, 4), 0.3, np.float32)
    planes[:, 1, :, list(columns)] = 0.9
    return planes


def columns(seeds):
    return sorted(set(np.argwhere(seeds[0].numpy() == 1)[:, 1]))


def test_seeds_restart_from_the_cues():
    assert columns(RESTART.grown(sure_of(0, 1, 2), cued())) == [0, 1, 2]
    assert columns(RESTART.grown(sure_of(0, 1), cued())) == [0, 1]


def test_seeds_accumulate_also_when_the_image_is_mirrored():
    memory, training = SeedMemory(), replace(RESTART, seeds="accumulate")
    assert columns(training.grown(sure_of(0, 1), cued(), memory)) == [0, 1]
    assert columns(training.grown(sure_of(), cued(), memory)) == [0, 1]
    assert columns(training.grown(sure_of(), cued(mirrored=(True,)), memory)) == [2, 3]
    assert columns(training.grown(sure_of(1), cued(mirrored=(True,)), memory)) == [1, 2, 3]
    assert columns(training.grown(sure_of(), cued(), memory)) == [0, 1, 2]


def test_a_class_that_the_image_has_not_does_not_grow():
    assert columns(RESTART.grown(sure_of(0, 1), cued(classes=((1,),)))) == [0]


def test_only_what_accumulates_has_a_memory_and_none_is_stored():
    assert not hasattr(RESTART.build(("green", "red")), "memory")
    training = replace(RESTART, seeds="accumulate")
    network = training.build(("green", "red"))
    assert any("memory" in name for name in network.state_dict())
    stored = training.stored(network)
    assert not any("memory" in name for name in stored.state_dict())


def test_the_crf_sees_the_image_at_the_size_of_the_logits(monkeypatch):
    seen = []
    monkeypatch.setattr(
        type(RESTART.crf), "probabilities", lambda self, image, h: seen.append((image, h)) or h
    )
    levels = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 3), np.uint8)
    planes = normalise(torch.from_numpy(levels).permute(0, 3, 1, 2))
    logs = torch.randn(1, 3, 3, 3).log_softmax(1)
    found = RESTART.refined(planes, logs)
    ((image, h),) = seen
    np.testing.assert_array_equal(image, levels[0, ::4, ::4])
    np.testing.assert_allclose(h, logs[0].exp().numpy(), rtol=1e-6)
    assert found.shape == (1, 3, 3, 3)


def test_what_is_no_number_reaches_the_loss():
    network = RESTART.build(("green", "red")).train()
    images = torch.full((1, 3, 48, 48), float("nan"))
    given = replace(cued(), cues=torch.zeros(1, 48, 48, dtype=torch.uint8))
    parts = RESTART.losses(network, (images, given, ["a"]), torch.float32)
    assert all(torch.isnan(part.sums).all() for part in parts.values())


def test_a_copy_of_the_network_does_not_copy_the_worker():
    class Worker:
        rank, world = 0, 1

        def gather(self, share):
            return [share]

        def __deepcopy__(self, memo):
            raise TypeError("a worker is of one process")

    training = replace(RESTART, seeds="accumulate")
    network = training.build(("green", "red"))
    training.reseed(network, 0, Worker())
    copied = copy.deepcopy(network)
    copied.memory.keep([(0, 3, False, torch.zeros(1, 1, dtype=torch.uint8))])
    assert network.memory.get_extra_state().numel() == 0


@pytest.mark.parametrize("size_hw", [(41, 61), (95, 31)])
def test_images_and_labels_are_warped_to_a_square(size_hw):
    rng = np.random.default_rng(0)  # odd sides: no centre lies between two pixels
    pixels = rng.integers(0, 256, (*size_hw, 3), np.uint8)
    labels = rng.integers(0, 5, size_hw).astype(np.uint8)
    resized = np.asarray(Image.fromarray(pixels).resize((33, 33), Image.Resampling.BILINEAR))
    expected = normalise(torch.from_numpy(resized.copy()).permute(2, 0, 1)[None])[0].numpy()
    nearest = np.asarray(Image.fromarray(labels).resize((33, 33), Image.Resampling.NEAREST))
    crops, ways = WarpedImages(side=33), set()
    for draw in range(6):
        image, target = crops.cut(pixels, labels, np.random.default_rng(draw))
        mirrored = crops.mirrored(np.random.default_rng(draw))
        ways.add(mirrored)
        step = -1 if mirrored else 1
        np.testing.assert_allclose(image[:, :, ::step], expected, atol=1e-5)
        np.testing.assert_array_equal(target[:, ::step], nearest)
    assert ways == {True, False}
    assert not any(
        WarpedImages(flip=False).mirrored(np.random.default_rng(draw)) for draw in range(6)
    )


def test_batches_say_which_images_they_hold_and_how_they_lie(tmp_path):
    store(tmp_path, scenes(tmp_path / "images"))
    manifest = Folder(str(tmp_path)) / "manifest"
    samples = list(read_manifest(manifest).select("train").samples())
    labels = Cues(Truths(manifest, "train"))
    work = Work(str(tmp_path), "", RESTART, labels, [one.id for one in samples], CLASSES)
    whole = list(RESTART.batches(work, samples, 3, Worker()))
    halves = [list(RESTART.batches(work, samples, 3, Worker(rank, 2))) for rank in range(2)]
    assert [len(one) for one in (whole, *halves)] == [2, 2, 2]
    for batch, *parts in zip(whole, *halves, strict=True):
        for rank, (images, own, ids) in enumerate(parts):
            assert ids == batch[2][rank::2]
            assert torch.equal(images, batch[0][rank::2])
            assert torch.equal(own.cues, batch[1].cues[rank::2])
            for name in ("classes", "numbers", "places", "mirrored"):
                assert getattr(own, name) == getattr(batch[1], name)[rank::2]
        assert batch[1].places == [0, 1, 2, 3]
        assert [samples[number].id for number in batch[1].numbers] == batch[2]
        assert batch[1].classes == [samples[number].tags for number in batch[1].numbers]


def test_the_grid_of_the_published_network_is_41_cells():
    with torch.device("meta"):
        network = DSRGTraining(weights="none").build([f"class {i}" for i in range(20)]).eval()
        (logits,) = network(torch.zeros(2, 3, 321, 321))
    assert logits.shape == (2, 21, 41, 41)
