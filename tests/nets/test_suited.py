import pytest
import torch
from torch import nn

from rayseg.nets.backbones import build_trunk
from rayseg.nets.suited import LeanReLU6, StridedDepthwise, suit_depthwise, suit_relu6


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


def test_relu6_and_its_gradient_stay_and_the_input_is_not_copied():
    inputs = torch.tensor([-1.0, 0, 1e-3, 3, 6, 6.5, float("nan")])
    weights = torch.arange(1.0, 8)
    exact = inputs.clone().requires_grad_()
    expected = nn.functional.relu6(exact)
    suited = nn.Sequential(nn.ReLU6())
    suit_relu6(suited)
    assert isinstance(suited[0], LeanReLU6)
    shown = inputs.clone().requires_grad_()
    between = shown * 1
    found = suited(between)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.data_ptr() == between.data_ptr()
    for outputs in (expected, found):
        (outputs * weights).nansum().backward()
    assert torch.equal(shown.grad[:-1], exact.grad[:-1])
