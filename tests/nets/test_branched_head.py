"""DeepLab-v2's head of VGG-16: its sum of branches, what it leaves out, its file."""

import pytest
import torch
from torch.nn import functional

from rayseg.nets.branched_head import BranchedHead, SharedDropout
from rayseg.nets.deeplab import Segmenter, load_segmenter, segmenter_facts
from rayseg.nets.weights import to_safetensors


@pytest.fixture
def head():
    torch.manual_seed(0)
    return BranchedHead(3, 2, width=5, rates=(1, 2))


def test_logits_are_the_sum_of_the_branches(head):
    features = torch.randn(2, 3, 6, 7)
    expected = torch.zeros(2, 2, 6, 7)
    for branch, rate in zip(head.branches, (1, 2), strict=True):
        convolutions = [one for one in branch if isinstance(one, torch.nn.Conv2d)]
        fc6, fc7, fc8 = ((one.weight, one.bias) for one in convolutions)
        hidden = functional.conv2d(features, *fc6, padding=rate, dilation=rate).clamp(min=0)
        expected += functional.conv2d(functional.conv2d(hidden, *fc7).clamp(min=0), *fc8)
    assert torch.allclose(head.eval()(features), expected, atol=1e-6)


def test_two_workers_leave_out_together_what_one_leaves_out(head):
    features = torch.randn(4, 3, 6, 7)
    head.reseed(3, 8)
    whole = head(features)
    for rank in range(2):
        head.reseed(3, 8, rank, 2)
        assert torch.allclose(head(features[rank::2]), whole[rank::2], atol=1e-6)
    assert not torch.allclose(whole, head.eval()(features))


@pytest.mark.parametrize("other", [(4, 8), (3, 9)], ids=["seed", "step"])
def test_what_is_left_out_follows_from_seed_and_step(head, other):
    features = torch.randn(1, 3, 6, 7)
    answers = []
    for given in ((3, 8), (3, 8), other, ()):
        if given:
            head.reseed(*given)
        answers.append(head(features))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[2], answers[3])  # a second forward is another step


def test_what_is_left_out_is_so_often_and_the_mean_stays():
    dropout, values = SharedDropout(0.3, 0), torch.ones(2, 4, 100, 100)
    dropout.draws = (0, 0, 0, 1)
    found = dropout(values)
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (found == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert not torch.equal(found[0], found[1])
    assert dropout.eval()(values) is values


def test_every_dropout_of_a_head_draws_for_itself(head):
    places = [one.place for one in head.modules() if isinstance(one, SharedDropout)]
    assert sorted(places) == [0, 1, 2, 3]


def test_its_width_comes_back_from_the_file(tmp_path):
    network = Segmenter("deeplab_v2_fc", "resnet18", 3, 16, input_scales=(1.0,), head_width=7)
    path = tmp_path / "segmenter.safetensors"
    path.write_bytes(to_safetensors(network, segmenter_facts(network, ["cat", "dog"])))
    found, images = load_segmenter(str(path)), torch.rand(1, 3, 40, 48)
    assert found.head.width == 7
    assert torch.equal(found.logits(images), network.eval().logits(images))


def test_a_rate_of_one_and_a_width_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"drop rate must be in \[0, 1\), got 1"):
        SharedDropout(1, 0)
    with pytest.raises(ValueError, match="head_width must be 1 or more, got 0"):
        BranchedHead(3, 2, width=0)
