import pytest
import torch

from rayseg.nets.classifier import CamClassifier, load_classifier
from rayseg.nets.weights import to_safetensors

FACTS = {"trunk": "resnet18", "stride": 16, "classes": ["cat", "dog"]}


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return CamClassifier("resnet18", 2)


def test_head_is_one_weight_a_channel_and_class_without_bias(classifier):
    assert classifier.head.weight.shape == (2, 512, 1, 1)
    assert classifier.head.bias is None


def test_logit_is_the_mean_of_the_class_map(classifier):
    classifier.eval()
    images = torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        maps = torch.einsum(
            "ndhw,cd->nchw", classifier.features(images), classifier.head.weight[:, :, 0, 0]
        )
        torch.testing.assert_close(classifier(images), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_move_in_training_only_where_they_are_not_frozen(frozen):
    network = CamClassifier("resnet18", 2, frozen_statistics=frozen).train()
    before = network.trunk.stem[1].running_mean.clone()
    network(torch.rand(2, 3, 48, 48)).sum().backward()
    assert torch.equal(network.trunk.stem[1].running_mean, before) is frozen
    assert network.trunk.stem[1].weight.grad is not None
    assert network.training


def test_training_mode_can_be_switched_and_returns_the_network(classifier):
    assert classifier.train() is classifier
    assert classifier.eval() is classifier
    assert not any(module.training for module in classifier.modules())


def test_classifier_comes_back_from_its_file(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_safetensors(classifier, FACTS))
    back = load_classifier(str(path), ["cat", "dog"])
    assert not back.training
    assert back.stride == 16
    for key, value in classifier.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("classes", [["dog", "cat"], ["cat"], ["cat", "dog", "cow"]])
def test_other_classes_are_refused_with_both_sides(classifier, tmp_path, classes):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_safetensors(classifier, FACTS))
    reason = rf"trained on 2 classes \(cat, dog.*has {len(classes)} \({', '.join(classes)}"
    with pytest.raises(ValueError, match=reason):
        load_classifier(str(path), classes)


def test_file_whose_facts_do_not_fit_its_tensors_is_refused(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_safetensors(classifier, {**FACTS, "trunk": "mobilenet_v2"}))
    with pytest.raises(ValueError, match="weights of another network"):
        load_classifier(str(path))


def test_facts_without_a_trunk_are_refused_in_one_line(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_safetensors(classifier, {"classes": ["cat", "dog"]}))
    with pytest.raises(ValueError, match="must say its trunk, stride and classes") as caught:
        load_classifier(str(path))
    assert "\n" not in str(caught.value)
