"""RIB's course over its steps, and what a prepared network is taken for."""

from dataclasses import replace

import pytest
import torch

from rayseg.attribution import CAM, RIB, AdvCAM

STILL = RIB(
    scales=(1.0, 0.5),
    num_steps=3,
    learning_rate=1e-3,
    num_companions=0,
    power=0.0,
    margin=1e9,
    explosion_share=1.0,
    add_last=True,
    precision="fp32",
)


def test_course_is_that_of_ever_more_steps(network, image):
    pixels = torch.from_numpy(image)
    course = list(STILL.course(network, pixels, [2, 0], map_stride=4))
    assert [found.steps for found in course] == [1, 2, 3, 3]
    for k, found in enumerate(course):
        (expected,) = replace(STILL, num_steps=k).run(network, pixels[None], [[2, 0]], 4)
        torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-5)


def test_course_is_that_of_runs_whose_rate_decays_over_as_many_steps(network, image):
    pixels = torch.from_numpy(image)
    decaying = replace(STILL, num_steps=5, power=0.9, decay_steps=5, add_last=False)
    course = list(decaying.course(network, pixels, [2, 0], map_stride=4))
    for k, found in enumerate(course, 1):
        (expected,) = replace(decaying, num_steps=k).run(network, pixels[None], [[2, 0]], 4)
        torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-5)
    (own,) = replace(decaying, num_steps=4, decay_steps=0).run(network, pixels[None], [[2, 0]], 4)
    assert not torch.allclose(own.maps, course[3].maps, rtol=1e-4, atol=1e-5)


def test_course_begins_with_cam_and_ends_with_run(network, image):
    pixels = torch.from_numpy(image)
    first, *_, last = STILL.course(network, pixels, [1])
    plain = CAM(scales=STILL.scales, precision="fp32")(network, image, [1])
    torch.testing.assert_close(first.maps, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(last.maps, STILL(network, image, [1]))


def test_image_without_classes_has_no_course(network, image):
    assert list(STILL.course(network, torch.from_numpy(image), [])) == []


def test_course_refuses_a_class_that_the_network_lacks(network, image):
    with pytest.raises(ValueError, match=r"classes must lie in 0\.\.2, got 3"):
        next(STILL.course(network, torch.from_numpy(image), [3]))


def test_network_amid_a_course_takes_no_other_image_until_it_is_closed(network, image):
    prepared = STILL.prepare(network)
    course = STILL.course(prepared, torch.from_numpy(image), [1])
    next(course)
    next(course)
    assert not torch.equal(prepared.moving, prepared.start)
    with pytest.raises(RuntimeError, match="got one amid another image"):
        STILL(prepared, image, [1])
    course.close()
    assert torch.equal(prepared.moving, prepared.start)
    torch.testing.assert_close(STILL(prepared, image, [1]), STILL(network, image, [1]))


def test_prepared_network_without_a_bank_is_refused_where_companions_are_asked_for(network, image):
    prepared = STILL.prepare(network)
    with pytest.raises(ValueError, match="companions must be given"):
        replace(STILL, num_companions=2)(prepared, image, [1])


@pytest.mark.parametrize("method", [CAM(), AdvCAM()], ids=["cam", "advcam"])
def test_other_methods_refuse_the_network_that_rib_moves(network, image, method):
    with pytest.raises(ValueError, match="got the AdaptableNetwork of another method"):
        method(STILL.prepare(network), image, [1])
