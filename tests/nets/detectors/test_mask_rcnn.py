"""Mask R-CNN: its losses against torchvision's and literal ones, masks against areas of cells."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.models.detection import roi_heads

from rayseg.nets.detectors import mask_rcnn
from rayseg.nets.detectors.design import MaskLearning, MaskRCNNDesign
from rayseg.nets.detectors.instance_masks import SoftInstances, paste_grid, project_masks
from rayseg.nets.detectors.mask_rcnn import MaskRCNN, load_mask_rcnn
from rayseg.nets.detectors.two_stage import box_losses
from rayseg.nets.weights import to_safetensors
from tests.nets.detectors.tiny import CLASSES, apart


def tiny(**changed):
    torch.manual_seed(0)
    small = {"channels": 16, "width": 32, "min_sides": (64,), "test_side": 64, "max_side": 96}
    settings = {"trunk": "mobilenet_v2"} | small | changed
    return MaskRCNN(*apart(settings, MaskRCNNDesign, MaskLearning))


@pytest.fixture(scope="module")
def network():
    return tiny().eval()


def objects(boxes, size_hw, doubt=0, has_mask=None):
    """Targets of filled boxes, with doubt of so many pixels around each."""
    foreground = torch.zeros(len(boxes), *size_hw, dtype=torch.bool)
    possible = foreground.clone()
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        foreground[i, y1:y2, x1:x2] = True
        possible[i, max(y1 - doubt, 0) : y2 + doubt, max(x1 - doubt, 0) : x2 + doubt] = True
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "classes": torch.arange(len(boxes)) % 3,
        "foreground": foreground,
        "possible": possible,
        "has_mask": torch.tensor([True] * len(boxes) if has_mask is None else has_mask).bool(),
    }


def picture(seed, size_hw=(60, 80)):
    return torch.rand(3, *size_hw, generator=torch.Generator().manual_seed(seed))


TWO = [(8, 10, 40, 44), (36, 20, 78, 58)]


def losses(network, targets, images=None):
    torch.manual_seed(1)  # what is drawn: the side of the image and the sampled proposals
    images = images or [picture(i) for i in range(len(targets))]
    return network.train()(images, targets)


def test_losses_are_finite_and_every_trained_weight_has_a_gradient():
    network = tiny()
    found = losses(network, [objects(TWO, (60, 80), 3), objects([], (60, 80))])
    assert set(found) == {
        *("loss_objectness", "loss_rpn_box_reg"),
        *("loss_classifier", "loss_box_reg", "loss_mask"),
    }
    sum(found.values()).backward()
    assert found["loss_mask"].item() > 0
    trained = {name: w for name, w in network.named_parameters() if w.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"pyramid", "rpn", "boxes", "mask_head"}
    for name, weight in trained.items():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


@pytest.mark.parametrize(
    "targets", [[objects([], (60, 80))], [objects(TWO, (60, 80), 0, [False, False])]]
)
def test_without_masks_the_mask_head_learns_nothing_but_takes_part(targets):
    network = tiny()
    found = losses(network, targets)
    sum(found.values()).backward()
    assert found["loss_mask"].item() == 0
    assert all(w.grad is not None and not w.grad.any() for w in network.mask_head.parameters())


def test_an_object_without_a_mask_changes_boxes_but_not_what_masks_learn():
    network = tiny()
    masked, bare = objects(TWO, (60, 80), 2), objects(TWO, (60, 80), 2, [True, False])
    wrong = {name: part.clone() for name, part in bare.items()}
    wrong["foreground"][1] = wrong["possible"][1] = False
    a, b, c = (losses(network, [one]) for one in (masked, bare, wrong))
    assert b["loss_mask"] == c["loss_mask"] != a["loss_mask"]
    assert a["loss_box_reg"] == b["loss_box_reg"] > 0


@pytest.mark.parametrize("regions", [4, 16])
def test_at_most_a_quarter_of_the_regions_train_the_mask_head(regions):
    network, seen = tiny(regions=regions), []
    network.mask_head.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    losses(network, [objects(TWO, (60, 80))])
    assert 0 < seen[0] <= regions // 4


def recorded(monkeypatch, network, targets):
    """The mask loss, and the logits and hard targets that it was taken of."""
    seen = []

    def record(logits, foreground, background, balanced):
        seen.append((logits, foreground, background))
        return mask_loss(logits, foreground, background, balanced)

    mask_loss = mask_rcnn.balanced_mask_loss
    monkeypatch.setattr(mask_rcnn, "balanced_mask_loss", record)
    return losses(network, targets)["loss_mask"], *seen[0]


def test_plain_loss_of_true_masks_is_that_of_mask_rcnn(monkeypatch):
    plain = tiny(grow=False, mask_loss="plain")
    targets = [objects(TWO, (60, 80))]
    loss, logits, foreground, background = recorded(monkeypatch, plain, targets)
    assert torch.equal(background, ~foreground)
    expected = functional.binary_cross_entropy_with_logits(logits, foreground.float())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_doubtful_cells_are_of_neither_side_unless_grown(monkeypatch):
    targets = [objects(TWO, (60, 80), 6)]
    for grow, bounds in ((False, (0.9, 0.1)), (True, (0.0, 0.0))):
        network = tiny(grow=grow, sure_foreground=bounds[0], sure_background=bounds[1])
        _, _, foreground, background = recorded(monkeypatch, network, targets)
        doubtful = ~(foreground | background)
        assert not (foreground & background).any()
        assert doubtful.any() != grow  # every probability is above 0, so all doubt is foreground


def test_background_starts_where_no_pixel_is_possible(monkeypatch):
    network = tiny(grow=False)
    _, _, plain, rest = recorded(monkeypatch, network, [objects(TWO, (60, 80))])
    _, _, same, less = recorded(monkeypatch, network, [objects(TWO, (60, 80), 4)])
    assert torch.equal(same, plain)
    assert (less <= rest).all()
    assert less.sum() < rest.sum()


def test_box_loss_is_torchvisions_but_for_beta():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(9, 4, generator=generator)
    deltas, wanted = torch.randn(9, 16, generator=generator), torch.randn(9, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 0, 3, 2])
    found = box_losses(logits, deltas, [labels], [wanted])
    theirs, _ = roi_heads.fastrcnn_loss(logits, deltas, [labels], [wanted])
    assert found["loss_classifier"].item() == pytest.approx(theirs.item())
    total = 0.0
    for row, label in enumerate(labels.tolist()):
        for side in range(4) if label else ():
            far = abs(float(deltas[row, 4 * label + side] - wanted[row, side]))
            total += far**2 / 2 if far < 1 else far - 0.5
    assert found["loss_box_reg"].item() == pytest.approx(total / 9, rel=1e-5)


def covered(mask, box, cells):
    """Share of each cell of a box that a mask of whole pixels covers."""
    x1, y1, x2, y2 = box
    shares = []
    for low, high, side in ((y1, y2, mask.shape[0]), (x1, x2, mask.shape[1])):
        edges = np.linspace(low, high, cells + 1)
        starts = np.arange(side)
        overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
        shares.append(overlap.clip(min=0) / (high - low) * cells)  # (cells, side)
    return shares[0] @ mask @ shares[1].T


@pytest.mark.parametrize("box", [(3, 5, 31, 33), (2, 1, 58, 57), (4.5, 6.25, 50.5, 39.75)])
def test_a_cell_is_of_a_mask_that_covers_half_of_it(box):
    y, x = np.indices((60, 70))
    masks = np.stack([(x - 25) ** 2 + (y - 20) ** 2 < 200, (x > 12) & (y < 44)])
    found = project_masks(
        torch.tensor(masks), torch.tensor([box, box]).float(), torch.tensor([1, 0]), 28
    )
    for cells, mask in zip(found.numpy(), masks[::-1], strict=True):
        shares = covered(mask.astype(float), box, 28)
        clear = abs(shares - 0.5) > 0.15  # sums of bilinear samples are areas up to that
        assert clear.mean() > 0.9
        assert np.array_equal(cells[clear], shares[clear] > 0.5)


def test_a_grid_pasted_and_projected_is_itself():
    cells = torch.rand(28, 28, generator=torch.Generator().manual_seed(4)) > 0.5
    box = torch.tensor([7.0, 3.0, 7.0 + 84, 3.0 + 56])
    pasted = paste_grid(cells.float(), box, (70, 100)) > 0.5
    back = project_masks(pasted[None], box[None], torch.tensor([0]), 28)[0]
    inner = (slice(1, -1), slice(1, -1))
    assert (back == cells)[inner].float().mean() > 0.97


def sampled(grid, box, size_hw):
    """The grid between the centres of its cells, 0 beyond, at the pixels that a box touches."""
    x1, y1, x2, y2 = box
    cells, padded, plane = len(grid), np.pad(grid, 1), np.zeros(size_hw)
    for y in range(max(int(np.floor(y1)), 0), min(int(np.ceil(y2)), size_hw[0])):
        for x in range(max(int(np.floor(x1)), 0), min(int(np.ceil(x2)), size_hw[1])):
            v = (y + 0.5 - y1) / (y2 - y1) * cells + 0.5
            u = (x + 0.5 - x1) / (x2 - x1) * cells + 0.5
            for i in range(cells + 2):
                for j in range(cells + 2):
                    weight = max(1 - abs(v - i), 0) * max(1 - abs(u - j), 0)
                    plane[y, x] += weight * padded[i, j]
    return plane


@pytest.mark.parametrize("box", [(2, 3, 9, 12), (-3.5, -2.25, 6.5, 20.5), (8.2, 1.7, 40, 9.1)])
def test_pasting_samples_the_grid_at_pixel_centres(box):
    grid = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found = paste_grid(grid, torch.tensor(box, dtype=torch.float64), (14, 16))
    np.testing.assert_allclose(found, sampled(grid.numpy(), box, (14, 16)), atol=1e-12)


def test_a_box_outside_the_image_pastes_nothing():
    grid = torch.ones(4, 4)
    assert not paste_grid(grid, torch.tensor([20.0, 0.0, 30.0, 9.0]), (10, 12)).any()
    assert not paste_grid(grid, torch.tensor([3.0, 3.0, 3.0, 3.0]), (10, 12)).any()


def pixels(number=2, size_hw=(60, 80)):
    rng = np.random.default_rng(6)
    return torch.from_numpy(rng.integers(0, 256, (number, *size_hw, 3), dtype=np.uint8))


def test_predicted_masks_are_of_the_image_and_objects_fall_in_score(network):
    found = network.predict(pixels(), min_score=0.0, max_objects=7)
    assert len(found) == 2
    for boxes, classes, scores, masks in found:
        assert masks.shape == (len(boxes), 60, 80)
        assert masks.dtype == torch.bool
        assert len(boxes) == 7
        assert (scores.diff() <= 0).all()
        assert set(classes.tolist()) <= {0, 1, 2}
        assert (boxes[:, 2] <= 80).all()
        assert (boxes[:, 3] <= 60).all()


def test_an_image_is_read_alike_alone_and_in_company(network):
    both = network.predict(pixels(), 0.0, 5)
    for i, together in enumerate(both):
        (alone,) = network.predict(pixels()[i : i + 1], 0.0, 5)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_nothing_above_the_score_is_an_empty_answer(network):
    for boxes, classes, scores, masks in network.predict(pixels(), 0.999):
        assert boxes.shape == (0, 4)
        assert len(classes) == len(scores) == 0
        assert masks.shape == (0, 60, 80)


def test_finding_leaves_the_network_as_it_was():
    network = tiny(frozen_statistics=False).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.predict(pixels(), 0.0, 3)
    assert network.training
    assert network.boxes.score_thresh == 0.05
    assert network.boxes.detections_per_img == 100
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_broken_weights_are_said_and_not_taken_for_an_empty_image():
    network = tiny()
    next(network.pyramid.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="features must be finite"):
        network.find(pixels())


def test_bf16_finds_what_float32_finds(network):
    whole, half = (network.find(pixels(1), 0.0, 20, p)[0] for p in ("fp32", "bf16"))
    assert half.scores.dtype == torch.float32
    torch.testing.assert_close(half.scores[0], whole.scores[0], rtol=0.05, atol=0.02)


def test_a_soft_mask_is_cut_above_the_threshold():
    grids = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(7))
    boxes = [(2.0, 2.0, 10.0, 10.0), (0.5, 3.0, 7.5, 12.0)]
    labels, scores = torch.tensor([1, 0]), torch.tensor([0.9, 0.8])
    found = SoftInstances(torch.tensor(boxes), labels, scores, grids, (12, 12)).masked(0.4)
    for mask, grid, box in zip(found.masks, grids, boxes, strict=True):
        assert np.array_equal(mask, sampled(grid.numpy(), box, (12, 12)) > 0.4)


def test_a_network_comes_back_from_its_file_as_it_was(network, tmp_path):
    path = tmp_path / "mask_rcnn.safetensors"
    path.write_bytes(to_safetensors(network, network.design.facts))
    loaded = load_mask_rcnn(str(path), CLASSES)
    assert not loaded.training
    for one, other in zip(
        network.predict(pixels(), 0.0), loaded.predict(pixels(), 0.0), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(ValueError, match=r"was trained on 3 classes .* has 2"):
        load_mask_rcnn(str(path), CLASSES[:2])


def test_what_stands_beside_the_weights_is_the_design_in_this_order():
    facts = tiny(upsample="nearest", anchors=(10, 20, 40, 80, 160)).design.facts
    assert json.dumps(facts) == (
        '{"network": "mask_rcnn", "trunk": "mobilenet_v2", "stride": 32, '
        '"classes": ["cat", "dog", "emu"], "upsample": "nearest", "channels": 16, "width": 32, '
        '"anchors": [10, 20, 40, 80, 160], "test_side": 64, "max_side": 96}'
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"anchors": (8, 16)}, "anchors must be 5, one a level, got 2"),
        ({"mask_loss": "dice"}, "mask_loss must be balanced or plain, got 'dice'"),
    ],
)
def test_what_makes_no_network_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        tiny(**changed)
