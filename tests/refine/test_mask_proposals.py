import io
import itertools
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as codec
from scipy.io import savemat

from rayseg.refine import BoxMask, ProposalRefinement, SuperpixelProposals, read_proposals
from rayseg.refine.mask_proposals import merge_regions
from rayseg.refine.proposals import Proposals

SIZE = (40, 60)
BOX = np.array([10, 5, 50, 37], np.float32)


def rectangle(x1, y1, x2, y2, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def held(*masks):
    return Proposals.of_masks(masks, masks[0].shape)


def draw_case(seed):
    """Rectangles as proposals, most of them near the box, and two masks in it."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(4, 58, (30, 2, 2)), axis=1)
    proposals = [rectangle(a[0], a[1] * 2 // 3, b[0] + 1, b[1] * 2 // 3 + 1) for a, b in corners]
    strict, lax = rectangle(20, 12, 36, 28), rectangle(14, 8, 44, 33)
    # the best for the lax mask, had it no pixel in the cells on the left of the box
    proposals += [lax | rectangle(9, 20, 14, 21), rectangle(0, 0, 10, 40)]
    return BoxMask(strict, lax), np.stack(proposals)


def literal_refined(mask, proposals, in_box=0.95, in_mask=0.95, whole_cells=True, weigh=None):
    """Pixel by pixel, with sets; each pixel weighs 1 or what `weigh` says."""
    weigh = weigh or (lambda y, x: 1)
    pixels = [set(zip(*np.nonzero(proposal), strict=True)) for proposal in proposals]
    target = set(zip(*np.nonzero(mask), strict=True))
    inside = set(itertools.product(range(5, 37), range(10, 50)))

    def total(part):
        return sum(int(weigh(y, x)) for y, x in part)

    def holders(pixel):
        return tuple(pixel in part for part in pixels)

    cells_inside = {holders(pixel) for pixel in inside} if whole_cells else set()
    cells_outside = set()
    if whole_cells:
        everywhere = set(itertools.product(range(SIZE[0]), range(SIZE[1])))
        cells_outside = {holders(pixel) for pixel in everywhere - inside} - cells_inside
    kept = [
        part
        for number, part in enumerate(pixels)
        if not any(cell[number] for cell in cells_outside)
    ]
    best, highest = None, 0
    for part in kept:
        overlap = total(part & target) / total(part | target)
        share = total(part & inside) / total(part)
        if overlap > highest and (share > in_box or share == 1):
            best, highest = part, overlap
    if best is None:
        return mask
    joined = set(best)
    for part in kept:
        share = total(part & target) / total(part)
        if share > in_mask or share == 1:
            joined |= part
    found = np.zeros(SIZE, bool)
    for y, x in joined & inside:
        found[y, x] = True
    return found


def check(refinement, seed, **options):
    mask, proposals = draw_case(seed)
    found = refinement(mask, BOX, held(*proposals))
    foreground = literal_refined(mask.foreground, proposals, **options)
    lax = literal_refined(mask.possible, proposals, **options)
    np.testing.assert_array_equal(found.foreground, foreground)
    np.testing.assert_array_equal(found.possible, lax | foreground)
    return (found.foreground != mask.foreground).any()


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_of_the_steps_written_out(seed):
    assert check(ProposalRefinement(), seed)


@pytest.mark.parametrize("seed", range(3))
def test_as_written_takes_whole_proposals_and_any_best_one(seed):
    changed = check(ProposalRefinement.as_written(), seed, in_box=0, in_mask=1, whole_cells=False)
    assert changed


@pytest.mark.parametrize("seed", range(3))
def test_coordinates_weigh_a_pixel_by_its_row_and_column(seed):
    assert check(ProposalRefinement(iou="coordinates"), seed, weigh=lambda y, x: y + x)


@pytest.mark.parametrize(
    ("kept_at", "other_at", "overlap"), [((4, 4), (8, 9), 0.32), ((4, 4), (3, 4), 8 / 15)]
)
def test_the_authors_iou_depends_on_where_pixels_lie(kept_at, other_at, overlap):
    """One pixel of two is .5; np.where sums its row and column, as in their binary_iou."""
    mask, proposal = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    mask[kept_at] = proposal[kept_at] = proposal[other_at] = True
    theirs = np.sum(np.where(mask & proposal)) / np.sum(np.where(mask | proposal))
    assert theirs == pytest.approx(overlap)
    rival = np.zeros((10, 10), bool)  # the mask and another two pixels, IoU 1 / 3
    rival[[4, 1, 2], [4, 3, 2]] = True
    box = np.array([0, 0, 10, 10], np.float32)

    def best(iou):
        refinement = ProposalRefinement(min_side=0, whole_cells=False, iou=iou)
        return refinement(BoxMask(mask, mask), box, held(rival, proposal)).foreground

    np.testing.assert_array_equal(best("true"), proposal)
    # the rival's other two weigh 4 each: 8 / 16 of coordinates
    np.testing.assert_array_equal(best("coordinates"), rival if overlap < 0.5 else proposal)


def test_best_proposal_and_those_in_the_mask_are_joined():
    mask = rectangle(20, 10, 40, 30)
    best, part, other = (
        rectangle(21, 10, 40, 29),
        rectangle(20, 28, 24, 30),
        rectangle(38, 28, 48, 36),
    )
    found = ProposalRefinement()(BoxMask(mask, mask), BOX, held(other, part, best))
    np.testing.assert_array_equal(found.foreground, best | part)


def test_what_lies_outside_the_box_is_cut_off():
    mask = rectangle(12, 6, 48, 36)
    best = rectangle(9, 6, 49, 36)  # 39 of 40 columns inside
    refinement = ProposalRefinement(whole_cells=False)
    found = refinement(BoxMask(mask, mask), BOX, held(best))
    np.testing.assert_array_equal(found.foreground, rectangle(10, 6, 49, 36))


def test_a_proposal_with_a_cell_outside_the_box_is_left_out():
    mask = rectangle(12, 6, 48, 36)
    best, cell = rectangle(9, 6, 49, 36), rectangle(9, 6, 10, 36)
    masks = BoxMask(mask, mask)
    with_cell = ProposalRefinement()(masks, BOX, held(best, cell))
    np.testing.assert_array_equal(with_cell.foreground, mask)
    without = ProposalRefinement()(masks, BOX, held(best))
    np.testing.assert_array_equal(without.foreground, best & rectangle(10, 5, 50, 37))


def test_a_small_box_stays_as_it_is():
    mask = BoxMask(rectangle(12, 8, 30, 30), rectangle(11, 7, 31, 31), "as it was")
    proposals = held(rectangle(11, 8, 30, 30))
    small = np.array([10, 5, 42, 36.9], np.float32)  # 32 x 31.9
    assert ProposalRefinement()(mask, small, proposals) is mask
    just = np.array([10, 5, 42, 37], np.float32)
    found = ProposalRefinement()(mask, just, proposals)
    np.testing.assert_array_equal(found.foreground, proposals[0])
    assert found.note == "as it was"


@pytest.mark.parametrize(
    "proposals",
    [
        Proposals.of_masks([], SIZE),
        held(np.zeros(SIZE, bool), np.zeros(SIZE, bool)),
        held(np.ones(SIZE, bool)),  # mostly outside the box
        held(rectangle(40, 30, 49, 36)),  # IoU 0
    ],
)
def test_a_mask_without_a_fitting_proposal_stays_as_it_is(proposals):
    mask = BoxMask(rectangle(20, 10, 30, 20), rectangle(20, 10, 34, 20))
    found = ProposalRefinement()(mask, BOX, proposals)
    np.testing.assert_array_equal(found.foreground, mask.foreground)
    np.testing.assert_array_equal(found.possible, mask.possible)


def test_an_empty_mask_stays_empty():
    empty = np.zeros(SIZE, bool)
    found = ProposalRefinement()(BoxMask(empty, empty), BOX, held(rectangle(20, 10, 30, 20)))
    assert not found.possible.any()


def test_proposals_of_another_size_are_refused():
    mask = BoxMask(rectangle(20, 10, 30, 20), rectangle(20, 10, 34, 20))
    with pytest.raises(ValueError, match=r"size, \(40, 60\), got \(9, 9\)"):
        ProposalRefinement()(mask, BOX, held(np.zeros((9, 9), bool)))


@pytest.mark.parametrize("iou", ["true", "coordinates"])
def test_objects_of_an_image_do_not_touch_each_other(iou):
    mask, masks = draw_case(0)
    refinement, proposals = ProposalRefinement(iou=iou), held(*masks)
    boxes = np.stack([BOX, BOX + 3, BOX])
    refine = refinement.on(proposals)
    for box, together in [(box, refine(mask, box)) for box in boxes]:
        alone = refinement(mask, box, proposals)
        np.testing.assert_array_equal(together.foreground, alone.foreground)
        np.testing.assert_array_equal(together.possible, alone.possible)


def test_a_cell_is_the_pixels_that_the_same_proposals_hold():
    masks = draw_case(1)[1]
    proposals = held(*masks)
    holders = {tuple(masks[:, y, x]) for y, x in np.ndindex(SIZE)}
    assert proposals.holds.shape == (len(masks), len(holders))
    np.testing.assert_array_equal(list(proposals), masks)


def test_superpixels_of_the_same_groups_are_one_cell():
    superpixels = np.array([[7, 7, 2], [0, 3, 2]])
    proposals = Proposals.of_groups(superpixels, [[7, 2], [2, 7, 3], [5]])
    assert len(np.unique(proposals.cells)) == 3  # 2 and 7; 3; 0
    np.testing.assert_array_equal(proposals[0], [[1, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(proposals[1], [[1, 1, 1], [0, 1, 1]])
    assert not proposals[2].any()


@pytest.mark.parametrize("wrong", [{"iou": "broken"}, {"min_side": -1}, {"in_box": 1.2}])
def test_values_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        ProposalRefinement(**wrong)


def literal_merging(superpixels, colours):
    """Regions as sets of pixels; every cost measured anew from the pixels at every merging."""
    regions = [
        frozenset(zip(*np.nonzero(superpixels == n), strict=True)) for n in np.unique(superpixels)
    ]
    found = [set(region) for region in regions]

    def border(a, b):
        return sum(
            (y + dy, x + dx) in b for y, x in a for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )

    def cost(a, b):
        means = [np.mean([colours[pixel] for pixel in part], axis=0) for part in (a, b)]
        distance = ((means[0] - means[1]) ** 2).sum()
        return len(a) * len(b) / (len(a) + len(b)) * distance / border(a, b)

    while len(regions) > 1:
        pairs = [(a, b) for a, b in itertools.combinations(regions, 2) if border(a, b)]
        a, b = min(pairs, key=lambda pair: cost(*pair))
        found += [set(one | two) for one, two in pairs if {one, two} & {a, b}]
        regions = [region for region in regions if region not in (a, b)] + [a | b]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_merging_equals_a_literal_one(seed):
    rng = np.random.default_rng(seed)
    superpixels = np.kron(np.arange(12).reshape(3, 4), np.ones((3, 2), int))
    superpixels[2, 3], superpixels[5, 0] = 5, 8
    colours = rng.random((*superpixels.shape, 3)) + rng.random((12, 3))[superpixels]
    groups = merge_regions(superpixels, colours)
    found = [np.isin(superpixels, group) for group in groups]
    expected = literal_merging(superpixels, colours)
    as_sets = [frozenset(zip(*np.nonzero(mask), strict=True)) for mask in found]
    assert len(set(as_sets)) == len(as_sets)
    assert sorted(map(sorted, as_sets)) == sorted(map(sorted, expected))


def draw_image(seed=0):
    """A disc of two halves on a ground of two halves, and the disc."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = (y - 20) ** 2 + (x - 28) ** 2 < 144
    light = np.where(disc, np.where(x < 28, 180, 220), np.where(y < 18, 40, 80))
    noise = np.random.default_rng(seed).integers(-4, 5, (*SIZE, 3))
    return (light[..., None] + noise).astype(np.uint8), disc


def test_an_object_of_parts_is_a_proposal():
    image, disc = draw_image()
    proposals = np.stack(list(SuperpixelProposals(min_size=20)(image)))
    overlaps = (proposals & disc).sum((1, 2)) / (proposals | disc).sum((1, 2))
    assert overlaps.max() > 0.95


def test_proposals_are_different_and_bounded_and_the_same_again():
    image, _ = draw_image()
    image.flags.writeable = False
    maker = pickle.loads(pickle.dumps(SuperpixelProposals(scale=5, min_size=10)))
    proposals = np.stack(list(maker(image)))
    assert len({proposal.tobytes() for proposal in proposals}) == len(proposals) > 12
    assert proposals.any((1, 2)).all()
    np.testing.assert_array_equal(proposals, list(maker(image)))
    few = list(SuperpixelProposals(scale=5, min_size=10, max_proposals=7)(image))
    np.testing.assert_array_equal(few, proposals[-7:])
    assert few[-1].all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (16, 16)])
def test_a_picture_of_one_colour_is_one_proposal(size):
    (proposal,) = SuperpixelProposals()(np.full((*size, 3), 90, np.uint8))
    assert proposal.shape == size
    assert proposal.all()


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"uint8 \(h, w, 3\)"):
        SuperpixelProposals()(np.zeros(SIZE, np.uint8))
    with pytest.raises(ValueError, match="positive"):
        SuperpixelProposals(max_proposals=0)


MASKS = np.random.default_rng(1).random((4, 5, 7)) < 0.5
REGIONS = np.arange(35).reshape(5, 7) // 6 + 300
"""Numbers above 255: a label map of 16 bits."""


def as_json(masks, compressed=True):
    found = [codec.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    for entry, mask in zip(found, masks, strict=True):
        entry["counts"] = entry["counts"].decode()
        if not compressed:
            flat = np.concatenate([[False], mask.ravel(order="F")])
            ends = [*np.flatnonzero(flat[1:] != flat[:-1]), mask.size]
            entry["counts"] = np.diff([0, *ends]).tolist()
    return json.dumps(found).encode()


def as_npz(*arrays):
    file = io.BytesIO()
    np.savez_compressed(file, *arrays)
    return file.getvalue()


def as_png(labels):
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    return file.getvalue()


def as_mat(superpixels, groups):
    cells = np.empty((len(groups), 1), object)
    for cell, group in zip(cells, groups, strict=True):
        cell[0] = np.array([group], np.uint16)
    file = io.BytesIO()
    savemat(file, {"superpixels": superpixels.astype(np.uint16), "labels": cells})
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "suffix"),
    [(as_json(MASKS), ".json"), (as_json(MASKS, False), ".json"), (as_npz(MASKS), ".npz")],
)
def test_masks_are_read_as_they_were_written(data, suffix):
    np.testing.assert_array_equal(list(read_proposals(data, suffix, (5, 7))), MASKS)
    np.testing.assert_array_equal(list(read_proposals(data, suffix, (5, 7), 2)), MASKS[:2])


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_of_masks_is_not_run(tmp_path):
    held = np.array([Harmful(tmp_path / "run")], object)
    with pytest.raises(ValueError, match="npz"):
        read_proposals(as_npz(held), ".npz", (5, 7))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("offset", [0, 300])
def test_every_superpixel_of_a_png_is_a_proposal(offset):
    labels = REGIONS - 300 + offset
    data = as_png(labels.astype(np.uint8 if offset == 0 else np.uint16))
    expected = [labels == offset + number for number in range(6)]
    np.testing.assert_array_equal(list(read_proposals(data, ".png", (5, 7))), expected)


def test_proposals_of_mcg_are_unions_of_superpixels():
    superpixels = REGIONS - 299
    groups = [[2], [1, 2, 3], [6, 1], [4, 5]]
    found = read_proposals(as_mat(superpixels, groups), ".mat", (5, 7))
    expected = [np.isin(superpixels, group) for group in groups]
    np.testing.assert_array_equal(list(found), expected)


@pytest.mark.parametrize(
    ("data", "suffix", "message"),
    [
        (b"", ".jpg", "suffix must be one of .json, .npz, .png, .mat, got '.jpg'"),
        (b"[{", ".json", "a .json that can be read, got"),
        (b'{"counts": []}', ".json", "dict where a list"),
        (b'[{"counts": "abc"}]', ".json", "'size'"),
        (as_json(MASKS[:, :4]), ".json", r"\(5, 7\) pixels \(h, w\), got \(4, 7\)"),
        (b'[{"size": [5, 7], "counts": [3, 4]}]', ".json", "a .json that can be read"),
        (b'[{"size": [5, 7], "counts": [0, 1099511627776]}]', ".json", "1099511627776 pixels"),
        (b'[{"size": [5, 7], "counts": "ooo"}]', ".json", "compressed counts"),
        (b'[{"size": [5, 7], "counts": "0"}]', ".json", "counts of 0 pixels where 35"),
        (as_npz(MASKS)[:60], ".npz", "a .npz that can be read"),
        (as_npz(MASKS.astype(np.uint8)), ".npz", r"uint8 \(4, 5, 7\) where bool"),
        (as_npz(MASKS, MASKS), ".npz", "2 arrays where one"),
        (as_npz(MASKS.transpose(0, 2, 1)), ".npz", r"got \(7, 5\)"),
        (as_png(np.zeros((5, 7, 3), np.uint8)), ".png", r"colours \(5, 7, 3\)"),
        (as_png(np.zeros((6, 7), np.uint8)), ".png", r"got \(6, 7\)"),
        (b"nothing", ".png", "a .png that can be read"),
        (b"nothing", ".mat", "a .mat that can be read"),
        (as_mat(REGIONS[:4] - 299, [[1]]), ".mat", r"got \(4, 7\)"),
        (as_mat(REGIONS - 299, [[9]]), ".mat", "a .mat that can be read"),
    ],
)
def test_files_that_are_broken_or_of_another_image_say_so_in_a_line(data, suffix, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_proposals(data, suffix, (5, 7))
    assert "\n" not in str(caught.value)
