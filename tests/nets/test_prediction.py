"""Prediction against a literal loop over passes, and what must not matter to it."""

import copy

import pytest
import torch
from torch.nn import functional

from rayseg.nets.backbones import keep_depthwise_float
from rayseg.nets.deeplab import Segmenter
from rayseg.nets.prediction import Prediction

CPU = torch.device("cpu")
MEAN = torch.tensor([0.485, 0.456, 0.406])
DEVIATION = torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = Segmenter("deeplab_v2", "mobilenet_v2", 4, stride=16, input_scales=(1.0, 0.5)).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    torch.nn.init.normal_(made.head.branches[0].weight, std=0.2)
    return made


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def literal(network, image, scales, flip):
    """Probabilities of one image, pass by pass, as a person would write them down."""
    height, width, _ = image.shape
    pixels = ((image / 255 - MEAN) / DEVIATION).permute(2, 0, 1)[None]
    passes = []
    for scale in scales:
        size = (round(height * scale), round(width * scale))
        view = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        passes.append(network(view)[-1])
        if flip:
            passes.append(torch.flip(network(torch.flip(view, [3]))[-1], [3]))
    return sum(
        functional.interpolate(one, (height, width), mode="bilinear", align_corners=False).softmax(
            1
        )
        for one in passes
    )[0] / len(passes)


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.75, 1.5), True)])
def test_probabilities_are_the_mean_over_the_passes(network, images, scales, flip):
    prediction = Prediction(scales, flip, precision="fp32")
    found = prediction(network, images)
    for image, one in zip(images, found, strict=True):
        assert torch.allclose(one, literal(network, image, scales, flip), atol=1e-5)


def test_probabilities_have_the_images_size_and_sum_to_one(network, images):
    found = Prediction(precision="fp32")(network, images)
    assert found.shape == (2, 4, 40, 56)
    assert torch.allclose(found.sum(1), torch.ones(2, 40, 56), atol=1e-5)


def test_the_prepared_copy_predicts_the_same_and_the_network_stays(network, images):
    before = copy.deepcopy(network.state_dict())
    prediction = Prediction(precision="fp32")
    prepared = prediction.prepare(network, CPU)
    assert torch.allclose(prediction(prepared, images), prediction(network, images), atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in prepared.trunk.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_network_in_training_is_prepared_as_a_trained_one(network, images):
    prediction = Prediction(precision="bf16")
    expected = prediction(prediction.prepare(network, CPU), images)
    training = copy.deepcopy(network).train()
    keep_depthwise_float(training)
    assert torch.equal(prediction(prediction.prepare(training, CPU), images), expected)
    assert training.training


def test_a_mirrored_image_has_mirrored_probabilities_when_flips_are_averaged(network, images):
    prediction = Prediction(flip=True, precision="fp32")
    there, back = prediction(network, images), prediction(network, images.flip(2)).flip(3)
    assert torch.allclose(there, back, atol=1e-5)


def test_bf16_changes_few_labels(network, images):
    plain, low = (
        prediction(prediction.prepare(network, CPU), images).argmax(1)
        for prediction in (Prediction(precision="fp32"), Prediction(precision="bf16"))
    )
    assert (plain == low).float().mean() > 0.97


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_scales_must_be_positive_factors(scales):
    with pytest.raises(ValueError, match=r"^scales must be one or more positive factors, got \("):
        Prediction(scales)
