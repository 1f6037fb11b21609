from dataclasses import replace

import pytest

from rayseg.attribution import RIB, LeanNetwork

ALONE = replace(RIB.official(), num_companions=0, precision="fp32")


def test_presets_carry_the_values_of_code_and_text():
    official, written, coco = RIB.official(), RIB.as_written(), RIB.coco()
    assert (official.num_steps, official.learning_rate, official.head_factor) == (10, 8e-6, 10)
    assert (official.margin, official.tau, official.num_companions) == (600, 0.4, 20)
    assert (official.explosion_threshold, official.explosion_share) == (0.3, 0.7)
    assert (written.num_steps, written.learning_rate, written.head_factor) == (10, 8e-6, 1)
    assert (written.margin, written.tau, written.num_companions) == (600, 0.4, 19)
    assert (coco.learning_rate, coco.margin, coco.tau) == (5e-6, 1000, 0.5)
    assert (coco.num_companions, coco.explosion_share) == (15, 0.8)


def test_companions_without_a_bank_are_refused(network):
    with pytest.raises(ValueError, match=r"companions must be given to prepare.* 20"):
        RIB.official().prepare(network)


def test_lean_copy_of_another_method_is_refused(network):
    with pytest.raises(ValueError, match="must be a classifier, got the lean copy"):
        ALONE.prepare(LeanNetwork(network, "fp32"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"num_steps": -1}, "num_steps must be 0 or more, got -1"),
        ({"learning_rate": -1e-6}, "learning_rate must be 0 or more, got -1e-06"),
        ({"learning_rate": float("nan")}, "learning_rate must be 0 or more, got nan"),
        ({"decay_steps": 5}, "decay_steps must be 0 or at least num_steps 10, got 5"),
        ({"decay_steps": -1}, "decay_steps must be 0 or at least num_steps 10, got -1"),
        ({"num_companions": -1}, "num_companions must be 0 or more, got -1"),
        ({"max_seconds": -1.0}, "max_seconds must be 0 or more, got -1.0"),
        ({"graph_gb": -1.0}, "graph_gb must be 0 or more, got -1.0"),
        ({"loss": "bce"}, "loss must be rib, sigmoid, tanh or softsign, got 'bce'"),
        ({"margin_role": "both"}, "margin_role must be stop or loss, got 'both'"),
        ({"pooling": "max"}, "pooling must be gndrp or gap, got 'max'"),
        ({"divide_by": "some"}, "divide_by must be all or kept, got 'some'"),
        ({"maps": "gradcam"}, "maps must be rectified or cam, got 'gradcam'"),
        ({"tau": 1.5}, r"tau must lie in \[0, 1\], got 1.5"),
        ({"explosion_share": -0.1}, r"explosion_share must lie in \[0, 1\], got -0.1"),
        ({"explosion_threshold": 2.0}, r"explosion_threshold must lie in \[0, 1\], got 2.0"),
        ({"scales": (0.5,)}, r"unpooled_scales must leave one of \(0.5,\) to learn from"),
        ({"scales": ()}, "scales must be positive and at least one"),
    ],
    ids=str,
)
def test_senseless_field_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        RIB(**fields)
