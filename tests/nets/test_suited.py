import pytest
import torch
from torch import nn

from rayseg.nets.backbones import build_trunk
from rayseg.nets.suited import StridedDepthwise, suit_depthwise


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_outputs_stay_and_the_gradient_is_the_convolutions(dtype, near):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 3, 2, 1, groups=6)
    inputs, weights = torch.randn(2, 6, 9, 12), torch.randn(2, 6, 5, 6)
    exact = inputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad((layer(exact) * weights).sum(), exact)
    layer.to(dtype)
    suited = nn.Sequential(layer)
    suit_depthwise(suited)
    shown = inputs.to(dtype).requires_grad_()
    outputs = suited(shown)
    assert torch.equal(outputs, layer(shown))
    (found,) = torch.autograd.grad((outputs * weights).sum(), shown)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=near, atol=near)


def test_strided_depthwise_convolutions_are_found_once():
    trunk = build_trunk("mobilenet_v2", 32).requires_grad_(False)
    suit_depthwise(trunk)
    suit_depthwise(trunk)
    found = [module for module in trunk.modules() if isinstance(module, StridedDepthwise)]
    assert len(found) == 4  # to strides 4, 8, 16 and 32
    assert all(isinstance(module.layer, nn.Conv2d) for module in found)
