from itertools import islice

import pytest
import torch

from rayseg.attribution import Companions
from rayseg.attribution.classes.base import seeded
from rayseg.nets.inputs import normalise


@pytest.fixture
def make_bank():
    """A bank whose crops have the given classes, out of five; crop i comes from image `i`."""

    def make(tags, side=8):
        rows = torch.zeros(len(tags), 5, dtype=torch.bool)
        for row, own in zip(rows, tags, strict=True):
            row[list(own)] = True
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (len(tags), side, side, 3), generator=generator)
        boxes = torch.tensor([[0, 0, side, side]] * len(tags))
        return Companions(tuple(map(str, range(len(tags)))), pixels.byte(), boxes, rows)

    return make


TAGS = [[0], [1], [0, 1], [2], [3], [2, 3], [4], [1, 4], [2, 4], [3, 4], [1, 2], [0, 4]]


def take(bank, steps, classes=(0,), number=3, seed=0, disjoint=True, image_id="elsewhere"):
    draws = bank.draws(classes, number, seeded(seed, image_id), disjoint, image_id)
    return list(islice(draws, steps))


def flat(draws):
    return [i for draw in draws for i in draw.indices.tolist()]


@pytest.mark.parametrize("classes", [[0], [1, 2], [4], [3, 0]])
def test_companions_share_no_class_with_the_image(make_bank, classes):
    free = {i for i, own in enumerate(TAGS) if not set(own) & set(classes)}
    draws = take(make_bank(TAGS), 30, classes)
    assert set(flat(draws)) == free  # all of them, in so many steps
    assert {draw.overlapping for draw in draws} == {0}


def test_any_companions_are_any_but_the_image_itself(make_bank):
    draws = take(make_bank(TAGS), 30, disjoint=False, image_id="3")
    assert set(flat(draws)) == set(range(len(TAGS))) - {3}
    for draw in draws:
        assert draw.overlapping == sum(0 in TAGS[i] for i in draw.indices.tolist())


def test_image_itself_is_no_companion_even_where_its_tags_are_others(make_bank):
    assert 3 not in flat(take(make_bank(TAGS), 30, image_id="3"))


@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_none_comes_twice_until_fewer_than_a_step_are_left(make_bank, number):
    bank = make_bank(TAGS)
    pool = 9  # without class 0
    whole = pool // number
    draws = take(bank, 3 * whole, number=number)
    assert all(len(draw.indices) == number for draw in draws)
    for start in range(0, 3 * whole, whole):
        used = flat(draws[start : start + whole])
        assert len(set(used)) == len(used) == whole * number


def test_next_round_has_another_order(make_bank):
    draws = take(make_bank(TAGS), 6)
    assert sorted(flat(draws[:3])) == sorted(flat(draws[3:]))
    assert flat(draws[:3]) != flat(draws[3:])


def test_draws_follow_from_the_seed_and_the_images_id(make_bank):
    first = flat(take(make_bank(TAGS), 8))
    assert flat(take(make_bank(TAGS), 8)) == first
    assert flat(take(make_bank(TAGS), 8, seed=1)) != first
    assert flat(take(make_bank(TAGS), 8, image_id="other")) != first


def test_without_enough_disjoint_ones_those_that_share_least_come_and_are_counted(make_bank):
    tags = [[0, 1, 2], [0, 1], [0], [3], [0, 1, 3], [1, 4]]
    draws = take(make_bank(tags), 4, [0, 1, 2], number=3)
    for draw in draws:
        assert sorted(draw.indices.tolist()) == [2, 3, 5]  # 1, 0 and 1 classes shared
        assert draw.overlapping == 2


def test_those_that_share_least_come_before_the_image_itself(make_bank):
    tags = [[0], [0, 1, 2], [0, 1, 2]]
    draws = take(make_bank(tags), 2, [0, 1, 2], number=2, image_id="0")
    assert set(flat(draws)) == {1, 2}


@pytest.mark.parametrize("disjoint", [True, False])
def test_bank_smaller_than_a_step_gives_all_it_has_each_step(make_bank, disjoint):
    for draw in take(make_bank([[1], [0], [2]]), 4, number=20, disjoint=disjoint):
        assert sorted(draw.indices.tolist()) == [0, 1, 2]
        assert draw.overlapping == 1


def test_images_are_normalised_crops_in_the_order_asked_for(make_bank):
    bank = make_bank(TAGS)
    found = bank.images(torch.tensor([4, 1, 4]), torch.device("cpu"))
    expected = [normalise(bank.pixels[i].permute(2, 0, 1)[None])[0] for i in (4, 1, 4)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_what_is_outside_of_the_image_is_the_mean_colour_whatever_pixels_hold(make_bank):
    bank = make_bank([[0], [1]])
    bank.boxes_yxyx[0] = torch.tensor([2, 3, 5, 7])
    found = bank.images(torch.tensor([1, 0]), torch.device("cpu"))
    whole = normalise(bank.pixels[0].permute(2, 0, 1)[None])[0]
    for row in range(8):
        for column in range(8):
            inside = 2 <= row < 5 and 3 <= column < 7
            expected = whole[:, row, column] if inside else torch.zeros(3)
            assert torch.equal(found[1, :, row, column], expected)


def test_bank_is_not_written_to(make_bank):
    bank = make_bank(TAGS)
    kept = [part.clone() for part in (bank.pixels, bank.boxes_yxyx, bank.tags)]
    take(bank, 5)
    bank.images(torch.arange(4), torch.device("cpu"))
    for part, before in zip((bank.pixels, bank.boxes_yxyx, bank.tags), kept, strict=True):
        assert torch.equal(part, before)


@pytest.mark.parametrize(
    ("ids", "pixels", "boxes", "tags"),
    [
        ((), (0, 8, 8, 3), (0, 4), (0, 5)),
        (("a",), (1, 8, 8), (1, 4), (1, 5)),
        (("a",), (1, 8, 8, 4), (1, 4), (1, 5)),
        (("a", "b"), (1, 8, 8, 3), (2, 4), (2, 5)),
        (("a", "b"), (2, 8, 8, 3), (2, 3), (2, 5)),
        (("a", "b"), (2, 8, 8, 3), (2, 4), (1, 5)),
    ],
)
def test_bank_of_unlike_lengths_is_refused(ids, pixels, boxes, tags):
    with pytest.raises(ValueError, match=r"companions must be .*, got"):
        Companions(
            ids,
            torch.zeros(pixels, dtype=torch.uint8),
            torch.zeros(boxes, dtype=torch.long),
            torch.zeros(tags, dtype=torch.bool),
        )


def test_pixels_other_than_levels_are_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        Companions(
            ("a",), torch.zeros(1, 8, 8, 3), torch.zeros(1, 4).long(), torch.zeros(1, 5).bool()
        )
