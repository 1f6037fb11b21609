import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3_resnet50

from rayseg.nets.classifier import CamClassifier, load_classifier
from rayseg.nets.deeplab import ASPP, HEADS, Segmenter, load_segmenter, segmenter_facts
from rayseg.nets.losses import segmentation_loss
from rayseg.nets.weights import to_safetensors
from tests.reference import deeplab_literal as literal

CLASSES = ["cat", "dog"]
SCALES = (1.0, 0.75, 0.5)


@pytest.fixture
def small():
    """A ResNet-18 with DeepLab-v2's head and two classes, in float64."""
    torch.manual_seed(0)
    return Segmenter("deeplab_v2", "resnet18", 3).double().eval()


def written(network, facts, folder):
    path = folder / "segmenter.safetensors"
    path.write_bytes(to_safetensors(network, facts))
    return str(path)


def test_aspp_is_the_sum_of_loops_over_taps():
    torch.manual_seed(0)
    head = ASPP(4, 3, rates=(1, 2, 5)).double()
    for branch in head.branches:
        nn.init.normal_(branch.bias)
    features = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    weights = [branch.weight.detach().numpy() for branch in head.branches]
    biases = [branch.bias.detach().numpy() for branch in head.branches]
    expected = [literal.aspp(one.numpy(), weights, biases, (1, 2, 5)) for one in features]
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_aspp_starts_near_zero_with_the_papers_rates():
    torch.manual_seed(0)
    head = ASPP(512, 21)
    assert [branch.dilation for branch in head.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    for branch in head.branches:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert branch.weight.mean().item() == pytest.approx(0, abs=1e-4)
        assert branch.bias.eq(0).all()


def test_scales_and_their_maximum_equal_loops(small):
    images = torch.randn(1, 3, 41, 50, dtype=torch.float64)

    def base(planes):
        with torch.no_grad():
            return small.head(small.trunk(torch.tensor(planes)[None]))[0].numpy()

    expected = literal.multi_scale(images[0].numpy(), base, SCALES)
    with torch.no_grad():
        found = small(images)
        last = small.logits(images)
    assert [one.shape[2:] for one in found] == [(6, 7), (4, 5), (3, 4), (6, 7)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one[0].numpy(), other, rtol=1e-9, atol=1e-12)
    assert torch.equal(last, found[-1])
    assert not torch.equal(last, found[0])


def test_sum_of_the_four_losses_equals_loops(small):
    images = torch.randn(2, 3, 33, 40, dtype=torch.float64)
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], (2, 33, 40)).astype(np.uint8)
    with torch.no_grad():
        outputs = small(images)
    terms = [segmentation_loss(logits, torch.tensor(labels)) for logits in outputs]
    expected = sum(literal.mean_loss(logits.numpy(), labels) for logits in outputs)
    assert len(terms) == 4
    found = sum(total / count for total, count in terms)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_one_scale_has_one_output():
    torch.manual_seed(0)
    network = Segmenter("deeplab_v2", "resnet18", 3, input_scales=(1.0,)).eval()
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        (found,) = network(images)
        assert torch.equal(found, network.logits(images))
        assert torch.equal(found, network.head(network.trunk(images)))


def test_image_of_one_pixel_has_logits(small):
    with torch.no_grad():
        found = small(torch.ones(1, 3, 1, 1, dtype=torch.float64))
    assert [tuple(one.shape) for one in found] == [(1, 3, 1, 1)] * 4
    assert torch.equal(found[1], found[0])


@pytest.mark.parametrize("network", HEADS)
@pytest.mark.parametrize(
    ("trunk", "stride"),
    [
        ("resnet101", 8),
        ("mobilenet_v2", 16),
        ("vgg16", 8),
        ("wide_resnet38", 8),
        ("small_resnet", 8),
    ],
)
def test_logits_lie_on_the_trunks_grid(network, trunk, stride):
    with torch.device("meta"):
        segmenter = Segmenter(network, trunk, 21, stride).eval()
        found = segmenter(torch.zeros(1, 3, 65, 97))
    sizes = [(65, 97), (48, 72), (32, 48), (65, 97)]
    assert [tuple(one.shape) for one in found] == [
        (1, 21, -(-height // stride), -(-width // stride)) for height, width in sizes
    ]


@pytest.mark.parametrize(("stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18])])
def test_deeplab_v3_has_the_papers_rates_and_a_dilated_trunk(stride, rates):
    with torch.device("meta"):
        network = Segmenter("deeplab_v3", "resnet50", 21, stride, input_scales=(1.0,))
    found = [m.dilation[0] for m in network.head.modules() if isinstance(m, nn.Conv2d)]
    assert [rate for rate in found if rate > 1] == rates
    assert network.trunk.stage4[0].conv2.dilation == (32 // stride,) * 2


def test_deeplab_v3_is_torchvisions_but_for_the_first_blocks_dilation():
    torch.manual_seed(0)
    ours = Segmenter("deeplab_v3", "resnet50", 3, input_scales=(1.0,)).double().eval()
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3)
    theirs.classifier.load_state_dict(ours.head.state_dict())
    stem = nn.ModuleDict({name: theirs.backbone[name] for name in ("conv1", "bn1")})
    for mine, its in zip(
        (ours.trunk.stem, *ours.trunk[1:]),
        (stem, *(theirs.backbone[f"layer{i}"] for i in range(1, 5))),
        strict=True,
    ):
        values = mine.state_dict().values()
        its.load_state_dict(dict(zip(its.state_dict(), values, strict=True)))
    for stage, dilation in ((ours.trunk.stage3, 1), (ours.trunk.stage4, 2)):
        assert stage[0].conv2.dilation == (2 * dilation, 2 * dilation)
        stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)
    images = torch.rand(1, 3, 48, 64).double()
    with torch.no_grad():
        found = functional.interpolate(ours.logits(images), (48, 64), mode="bilinear")
        expected = theirs.double().eval()(images)["out"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_the_trunk_freeze_and_those_of_the_head_do_not(frozen):
    torch.manual_seed(0)
    network = Segmenter(
        "deeplab_v3", "resnet18", 3, input_scales=(1.0,), frozen_statistics=frozen
    ).train()
    trunk, head = network.trunk.stage4[1].bn2, network.head[2]
    before = [trunk.running_mean.clone(), head.running_mean.clone()]
    network(torch.rand(2, 3, 48, 48))[0].sum().backward()
    assert torch.equal(trunk.running_mean, before[0]) is frozen
    assert not torch.equal(head.running_mean, before[1])
    assert trunk.weight.grad is not None
    assert network.eval() is network
    assert not any(module.training for module in network.modules())


def test_gradient_reaches_every_weight_from_the_maximum_alone():
    torch.manual_seed(0)
    network = Segmenter("deeplab_v2", "resnet18", 3).train()
    network.logits(torch.rand(1, 3, 48, 48)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_unknown_network_and_scales_are_refused_with_both_sides():
    with pytest.raises(ValueError, match="v2, deeplab_v2_fc, deeplab_v3, got 'deeplab_v1'"):
        Segmenter("deeplab_v1", "resnet18", 3)
    for scales in ((0.5, 1.0), (), (1.0, 0.0)):
        with pytest.raises(ValueError, match=r"begin with 1, got \("):
            Segmenter("deeplab_v2", "resnet18", 3, input_scales=scales)


@pytest.mark.parametrize(
    ("network", "stride", "scales"), [("deeplab_v2", 8, SCALES), ("deeplab_v3", 16, (1.0,))]
)
def test_segmenter_comes_back_from_its_file(tmp_path, network, stride, scales):
    torch.manual_seed(0)
    there = Segmenter(network, "resnet18", 3, stride, input_scales=scales).eval()
    path = written(there, segmenter_facts(there, CLASSES), tmp_path)
    back = load_segmenter(path, CLASSES)
    assert not any(module.training for module in back.modules())
    facts = ("network", "trunk_name", "stride", "input_scales", "num_labels")
    assert [getattr(back, fact) for fact in facts] == [getattr(there, fact) for fact in facts]
    images = torch.rand(1, 3, 33, 40)
    with torch.no_grad():
        assert torch.equal(back.logits(images), there.logits(images))


def refusal_of(path, classes=None):
    with pytest.raises(ValueError, match=path) as caught:
        load_segmenter(path, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_classes_are_refused_with_both_sides(small, tmp_path):
    path = written(small.float(), segmenter_facts(small, CLASSES), tmp_path)
    for classes in (["dog", "cat"], ["cat"], ["cat", "dog", "cow"]):
        reason = refusal_of(path, classes)
        assert "2 classes (cat, dog)" in reason
        assert f"the manifest has {len(classes)} ({', '.join(classes)})" in reason


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ({"trunk": "resnet34"}, "holds the weights of another network"),
        ({"trunk": "resnet19"}, "wide_resnet38, small_resnet, got 'resnet19'"),
        ({"network": "deeplab_v3"}, "holds the weights of another network"),
        ({"network": "deeplab_v9"}, "deeplab_v2_fc, deeplab_v3, got 'deeplab_v9'"),
        ({"classes": ["cat"]}, "head.branches.0.bias must be (2,), got (3,)"),
    ],
)
def test_facts_that_do_not_fit_the_tensors_are_refused_in_one_line(small, tmp_path, fact, reason):
    path = written(small.float(), {**segmenter_facts(small, CLASSES), **fact}, tmp_path)
    assert reason in refusal_of(path)


def test_file_that_is_none_of_ours_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.safetensors").write_bytes(b"text")
    assert "no safetensors file" in refusal_of(str(tmp_path / "text.safetensors"))
    save_file({"a": torch.rand(1)}, tmp_path / "other.safetensors")
    assert "not written by rayseg" in refusal_of(str(tmp_path / "other.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors does not exist"):
        load_segmenter(str(tmp_path / "none.safetensors"))


def test_classifier_and_segmenter_are_not_taken_for_each_other(small, tmp_path):
    path = written(small, segmenter_facts(small, CLASSES), tmp_path)
    with pytest.raises(ValueError, match="holds a deeplab_v2 segmenter, not a classifier"):
        load_classifier(path)
    classifier = CamClassifier("resnet18", 2)
    path = written(classifier, {"trunk": "resnet18", "stride": 16, "classes": CLASSES}, tmp_path)
    reason = refusal_of(path)
    assert "segmenter's and say its network, trunk" in reason
    assert reason.endswith("got classes, stride, trunk")


def test_facts_need_a_class_for_every_label_but_background(small):
    with pytest.raises(ValueError, match="3 labels must have 2 classes beside background, got 3"):
        segmenter_facts(small, ["cat", "dog", "cow"])


def test_trunk_starts_from_a_classifier(tmp_path):
    classifier = CamClassifier("resnet18", 2)
    facts = {"trunk": "resnet18", "stride": 16, "classes": CLASSES}
    path = written(classifier, facts, tmp_path)
    segmenter = Segmenter("deeplab_v2", "resnet18", 3, weights=path)
    for key, value in classifier.trunk.state_dict().items():
        assert torch.equal(segmenter.trunk.state_dict()[key], value)
    with pytest.raises(ValueError, match=r"trained with trunk resnet18, not with resnet34"):
        Segmenter("deeplab_v2", "resnet34", 3, weights=path)


@pytest.mark.data
def test_real_mobilenet_weights_load_into_a_dilated_segmenter(real_data):
    path = str(real_data / "weights" / "mobilenet_v2.pth")
    network = Segmenter("deeplab_v2", "mobilenet_v2", 21, weights=path).eval()
    assert network.trunk.stage4[0].conv[1][0].dilation == (4, 4)
    first = torch.load(path, weights_only=True)["features.0.0.weight"]
    assert torch.equal(network.trunk.stem[0][0].weight, first)
    with torch.no_grad():
        logits = network.logits(torch.rand(1, 3, 65, 65))
    assert logits.shape == (1, 21, 9, 9)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("size_hw", [(7, 30), (1, 1), (33, 25)])
def test_the_product_of_all_taps_is_the_sum_of_the_dilated_convolutions(size_hw):
    torch.manual_seed(0)
    aspp = ASPP(5, 3).double()
    features = torch.randn(2, 5, *size_hw, dtype=torch.float64)
    expected = sum(branch(features) for branch in aspp.branches)
    assert torch.allclose(aspp(features), expected, rtol=0, atol=1e-12)
