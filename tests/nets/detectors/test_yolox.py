import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rayseg.nets.detection import Window
from rayseg.nets.detectors import load_detector
from rayseg.nets.detectors.yolox import POINTS, SIDE, YOLOX, free_batch, fuse_silu
from rayseg.nets.inputs import MEAN_RGB
from rayseg.records.boxes import box_ious
from tests.nets.detectors.tiny import pictures

onnx = pytest.importorskip("onnx")
onnx2torch = pytest.importorskip("onnx2torch")
CPU = torch.device("cpu")


def saved(path, nodes, initializers=(), shape=(1, 3, SIDE, SIDE)):
    """Writes a network of these nodes, from ``images`` to ``output``."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [value("images", onnx.TensorProto.FLOAT, shape)],
        [value("output", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in initializers],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return str(path)


def weights():
    """Of a network of two classes that looks at the mean colours of cells: (7, 3) and (7, 7)."""
    generator = np.random.default_rng(0)
    colours = generator.normal(0, 0.01, (7, 3)).astype(np.float32)
    return colours, generator.normal(0, 0.7, (7, 7)).astype(np.float32)


def write_tiny(path, first_size=1):
    """A network with YOLOX's outputs, written down for one image as the published ones are."""
    node = onnx.helper.make_node
    colours, mixed = weights()
    constants = [("colours", colours[:, :, None, None]), ("mixed", mixed[:, :, None, None])]
    constants.append(("shape", np.array([first_size, 7, -1])))
    nodes = []
    for s in (8, 16, 32):
        nodes += [
            node("AveragePool", ["images"], [f"mean{s}"], kernel_shape=[s, s], strides=[s, s]),
            node("Conv", [f"mean{s}", "colours"], [f"x{s}"]),
            node("Sigmoid", [f"x{s}"], [f"gate{s}"]),
            node("Mul", [f"x{s}", f"gate{s}"], [f"silu{s}"]),
            node("Conv", [f"silu{s}", "mixed"], [f"y{s}"]),
            node("Sigmoid", [f"y{s}"], [f"out{s}"]),
            node("Reshape", [f"out{s}", "shape"], [f"flat{s}"]),
        ]
    nodes.append(node("Concat", [f"flat{s}" for s in (8, 16, 32)], ["all"], axis=2))
    nodes.append(node("Transpose", ["all"], ["output"], perm=[0, 2, 1]))
    return saved(path, nodes, constants)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture(scope="module")
def detector(path):
    return load_detector(path, ["cat", "dog"])


@pytest.fixture(scope="module")
def inputs(detector):
    return detector.encode(pictures(3, (104, 208)))


def all_points(number):
    every = torch.arange(POINTS)
    return torch.arange(number).repeat_interleave(POINTS), every.repeat(number)


def test_what_hides_pixels_is_the_mean_colour_in_the_networks_order(detector):
    colour = torch.tensor([255 * level for level in MEAN_RGB]).round().to(torch.uint8)
    found = detector.encode(colour.expand(1, SIDE, SIDE, 3))
    torch.testing.assert_close(found, detector.mean.expand_as(found), rtol=0, atol=0.5)


def test_reading_equals_the_network_written_out(detector, inputs):
    found = detector.read(inputs, *all_points(3))
    colours, mixed = weights()
    expected = []
    for image in inputs.numpy():
        for stride in (8, 16, 32):
            cells = image.reshape(3, SIDE // stride, stride, SIDE // stride, stride).mean((2, 4))
            x = np.einsum("ed,dyx->eyx", colours, cells)
            y = 1 / (1 + np.exp(-np.einsum("ed,dyx->eyx", mixed, x / (1 + np.exp(-x)))))
            row, column = np.indices(cells.shape[1:])
            middle = (y[0] + column) * stride, (y[1] + row) * stride
            half = np.exp(y[2]) * stride / 2, np.exp(y[3]) * stride / 2
            box = [middle[0] - half[0], middle[1] - half[1]]
            box += [middle[0] + half[0], middle[1] + half[1]]
            expected.append(np.stack([*box, *(y[5:] * y[4]), *y[:4]], 2).reshape(-1, 10))
    expected = torch.from_numpy(np.concatenate(expected)).float()
    boxes = expected[:, :4].clamp(0, SIDE)
    torch.testing.assert_close(found.boxes_xyxy[:, 0], boxes, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found.probabilities, expected[:, 4:6], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.deltas[:, 0], expected[:, 6:], rtol=1e-4, atol=1e-5)
    assert found.background.eq(0).all()


@pytest.mark.parametrize("first_size", [1, 0])
def test_images_of_a_batch_do_not_mix(tmp_path, first_size):
    network = load_detector(write_tiny(tmp_path / "tiny.onnx", first_size))
    inputs = network.encode(pictures(3, (104, 208)))
    together = network(inputs)
    alone = torch.cat([network(one[None]) for one in inputs])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)
    assert (alone[0] - alone[1]).abs().max() > 0.01


def test_sizes_that_are_given_elsewhere_stay(path):
    network = free_batch(onnx2torch.convert(path))
    assert dict(network.named_buffers())["initializers.onnx_initializer_0"].tolist() == [0, 7, -1]
    flat = onnx2torch.convert(path)
    shape = dict(flat.named_buffers())["initializers.onnx_initializer_0"]
    shape[0] = 3
    free_batch(flat)
    assert shape.tolist() == [3, 7, -1]


def test_gradient_reaches_the_pixels_of_the_candidates_cell_only(detector, inputs):
    shown = inputs.clone().requires_grad_()
    point = torch.tensor([52 * 3 + 5])  # row 3, column 5 of stride 8
    reading = detector.read(shown, torch.tensor([1]), point)
    (gradient,) = torch.autograd.grad(reading.probabilities.sum() + reading.deltas.sum(), shown)
    used = gradient.abs().sum(1) > 0
    assert used[1, 24:32, 40:48].all()
    assert used.sum() == 64


def test_candidates_of_detections_read_back(detector, inputs):
    fit = detector.fit((104, 208))
    for i, found in enumerate(detector.detect(pictures(3, (104, 208)), max_objects=9)):
        assert len(found.scores) == 9
        owner = torch.full_like(found.classes, i)
        scores, _, boxes = detector.read(inputs, owner, found.candidates).of(found.classes)
        torch.testing.assert_close(scores, found.scores)
        torch.testing.assert_close(fit.to_image(boxes), found.boxes_xyxy)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lean_copy_reads_the_same_or_nearly(detector, inputs, precision):
    lean = detector.lean(CPU, precision)
    found, expected = (one.read(inputs, *all_points(3)) for one in (lean, detector))
    near = {"fp32": 1e-5, "bf16": 0.02}[precision]
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=0, atol=near)
    torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=50 * near)
    assert not any(weight.requires_grad for weight in lean.parameters())


def test_input_is_bgr_at_the_upper_left_with_grey_around(detector):
    image = torch.zeros(1, 50, 100, 3, dtype=torch.uint8)
    image[..., 0], image[..., 2] = 10, 30
    found, fit = detector.encode(image), detector.fit((50, 100))
    assert (fit.content_hw, fit.input_hw) == ((208, 416), (416, 416))
    expected = torch.tensor([30.0, 0, 10]).view(3, 1, 1).expand(3, 208, 416)
    torch.testing.assert_close(found[0, :, :208], expected)
    assert found[0, :, 208:].eq(114).all()


def test_windows_are_refused(detector):
    with pytest.raises(ValueError, match="whole inputs of 416x416 only"):
        detector.in_window(torch.tensor([0]), (SIDE, SIDE), Window(0, 0, 64, 64))


def test_other_number_of_classes_is_refused_with_both_sides(path):
    with pytest.raises(ValueError, match="must have 3 classes, got 2"):
        load_detector(path, ["cat", "dog", "emu"])


def refusal(path):
    with pytest.raises(ValueError, match=path) as caught:
        YOLOX(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_network_with_other_outputs_is_refused_with_both_sides(tmp_path):
    path = saved(tmp_path / "same.onnx", [onnx.helper.make_node("Relu", ["images"], ["output"])])
    reason = refusal(path)
    assert f"must give (2, {POINTS}, 5 + classes)" in reason
    assert "got (2, 3, 416, 416)" in reason


def test_network_with_other_inputs_is_refused(tmp_path):
    node, shape = onnx.helper.make_node, ("shape", np.array([3, 64, 64]))
    nodes = [node("Reshape", ["images", "shape"], ["output"])]
    path = saved(tmp_path / "small.onnx", nodes, [shape], (1, 3, 64, 64))
    assert "must take images of 416x416: " in refusal(path)


@pytest.mark.parametrize("order", [["x", "gate"], ["gate", "x"]])
def test_gated_product_becomes_one_silu(tmp_path, order):
    node = onnx.helper.make_node
    nodes = [
        node("Relu", ["images"], ["x"]),
        node("Sigmoid", ["x"], ["gate"]),
        node("Mul", order, ["output"]),
    ]
    network = onnx2torch.convert(saved(tmp_path / "gate.onnx", nodes, shape=(1, 3, 4, 4)))
    images = torch.randn(1, 3, 4, 4)
    before = network(images)
    fused = fuse_silu(network)
    torch.testing.assert_close(fused(images), before, rtol=1e-6, atol=1e-6)
    assert [type(module) for module in fused.children()] == [nn.ReLU, nn.SiLU]


@pytest.mark.parametrize(
    "last",
    [("Mul", ["images", "gate"]), ("Add", ["x", "gate"]), ("Mul", ["gate", "gate"])],
    ids=["of another", "sum", "of itself"],
)
def test_what_is_no_gated_product_stays(tmp_path, last):
    node = onnx.helper.make_node
    nodes = [node("Relu", ["images"], ["x"]), node("Sigmoid", ["x"], ["gate"])]
    nodes.append(node(*last, ["output"]))
    network = onnx2torch.convert(saved(tmp_path / "gate.onnx", nodes, shape=(1, 3, 4, 4)))
    images = torch.randn(1, 3, 4, 4)
    before = network(images)
    fused = fuse_silu(network)
    torch.testing.assert_close(fused(images), before, rtol=0, atol=0)
    assert not any(isinstance(module, nn.SiLU) for module in fused.modules())


@pytest.fixture(scope="module")
def weights_file(real_data):
    path = real_data / "weights" / "yolox_nano.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return str(path)


@pytest.fixture(scope="module")
def nano(weights_file):
    return load_detector(weights_file)


@pytest.mark.data
@pytest.mark.parametrize("image_id", [34, 249346])
def test_nano_finds_a_big_object_of_coco(nano, real_data, image_id):
    home = real_data / "coco_mini"
    truth = json.loads((home / "annotations" / "instances_val2017.json").read_text())
    (own,) = [one for one in truth["annotations"] if one["image_id"] == image_id]
    classes = sorted(one["id"] for one in truth["categories"])
    picture = Image.open(home / "val2017" / f"{image_id:012}.jpg").convert("RGB")
    (found,) = nano.detect(torch.from_numpy(np.array(picture))[None])
    x, y, width, height = own["bbox"]
    box = np.array([[x, y, x + width, y + height]])
    assert box_ious(found.boxes_xyxy[:1].double().numpy(), box)[0, 0] > 0.5
    assert classes[found.classes[0]] == own["category_id"]
    assert found.scores[0] > 0.5


@pytest.mark.data
def test_nano_reads_two_images_as_each_alone(nano):
    double = copy.deepcopy(nano).double()
    inputs = nano.encode(pictures(2, (60, 80))).double()
    with torch.no_grad():
        found = double(inputs)
        alone = torch.cat([double(one[None]) for one in inputs])
    torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-9)
    assert (alone[0] - alone[1]).abs().max() > 0.1


@pytest.mark.data
def test_nanos_candidate_has_a_gradient_to_the_input(nano):
    shown = nano.encode(pictures(1, (60, 80))).requires_grad_()
    lean = nano.lean(CPU, "fp32")
    reading = lean.read(shown, torch.tensor([0]), torch.tensor([POINTS - 1]))
    (gradient,) = torch.autograd.grad(reading.probabilities.sum() + reading.deltas.sum(), shown)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.data
def test_nano_says_the_same_with_and_without_silus(nano, weights_file):
    plain = onnx2torch.convert(weights_file).eval()
    gates = [node for node in nano.network.graph.nodes if str(node.target) == "silu"]
    assert len(gates) == 104
    assert not any("mul" in str(node.target).lower() for node in nano.network.graph.nodes)
    inputs = nano.encode(pictures(1, (60, 80))).double()
    found = copy.deepcopy(nano).double()(inputs)
    with pytest.warns(UserWarning, match="non-tuple sequence"):
        expected = plain.double()(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
