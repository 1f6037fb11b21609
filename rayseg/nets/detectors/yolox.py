"""YOLOX from an ONNX file: a detector of others, as an example of how one fits.

Source: Ge et al., *YOLOX: Exceeding YOLO Series in 2021*. The file is the network as its authors
export it: RGB's reverse, levels 0 to 255, letterboxed with 114 at the upper left; it gives (x, y,
w, h, objectness, classes) of every point, box in units of its stride. onnx2torch makes a module of
it that can be differentiated to its input.
"""

import copy
import warnings
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torchvision.ops import clip_boxes_to_image

from rayseg.nets.detection import Detections, Detector, InputFit, Reading, Window
from rayseg.nets.detectors.two_stage import suppress
from rayseg.nets.inputs import MEAN_RGB, Precision, choose_dtype

SIDE = 416
STRIDES = (8, 16, 32)
POINTS = sum((SIDE // stride) ** 2 for stride in STRIDES)
PADDING = 114.0


class YOLOX(Detector):
    """A one-stage detector; its candidates are points, counted level by level.

    Args:
        path: of the ONNX file, for inputs of 416x416.
    """

    score_threshold = 0.05
    window_stride = 0
    feature_layer = ""
    corners: Tensor
    strides: Tensor

    def __init__(self, path: str):
        super().__init__()
        self.network = _converted(path)
        bgr = [255 * level for level in reversed(MEAN_RGB)]
        self.register_buffer("mean", torch.tensor(bgr).view(3, 1, 1), persistent=False)
        corners, strides = _points()
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        width = self._width(path)
        self.num_classes = width - 5

    def _width(self, path: str) -> int:
        """Numbers that the network gives of a point.

        Raises:
            ValueError: it is no YOLOX.
        """
        try:
            with torch.no_grad():
                outputs = self._run(torch.zeros(2, 3, SIDE, SIDE))
        except Exception as error:  # networks of others raise almost anything
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path} must take images of {SIDE}x{SIDE}: {reason}") from None
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if len(shape) != 3 or shape[:2] != (2, POINTS) or outputs.shape[2] < 6:
            raise ValueError(
                f"{path} must give (2, {POINTS}, 5 + classes) for two images as YOLOX does, "
                f"got {shape}"
            )
        return outputs.shape[2]

    def forward(self, inputs: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n p w"]:
        """What the network gives of each point of each input."""
        return self._run(inputs)

    def _run(self, inputs: Tensor) -> Float[Tensor, "n p w"]:
        with warnings.catch_warnings():
            # onnx2torch 1.5 indexes by lists; the result is right
            warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
            return self.network(inputs)

    def fit(self, image_hw: tuple[int, int]) -> InputFit:
        """The longer side becomes 416."""
        scale = min(SIDE / image_hw[0], SIDE / image_hw[1])
        content = (max(int(image_hw[0] * scale), 1), max(int(image_hw[1] * scale), 1))
        return InputFit(image_hw, content, (SIDE, SIDE))

    def encode(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 y x"]:
        """Letterboxed levels in BGR."""
        fit = self.fit((images.shape[1], images.shape[2]))
        planes = images.to(self.mean.device).permute(0, 3, 1, 2).flip(1).to(self.mean.dtype)
        content = functional.interpolate(
            planes, fit.content_hw, mode="bilinear", align_corners=False
        )
        below, right = (a - b for a, b in zip(fit.input_hw, fit.content_hw, strict=True))
        return functional.pad(content, (0, right, 0, below), value=PADDING)

    def candidates(self, proposals: Float[Tensor, "m 4"], input_hw: tuple[int, int]) -> Tensor:
        """Numbers of all points."""
        del proposals, input_hw
        return torch.arange(POINTS, device=self.mean.device)

    def in_window(self, candidates: Tensor, input_hw: tuple[int, int], window: Window) -> Tensor:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"a YOLOX from ONNX takes whole inputs of {SIDE}x{SIDE} only")

    def read(
        self, inputs: Float[Tensor, "n 3 y x"], owner: Int[Tensor, " m"], candidates: Tensor
    ) -> Reading:
        """All points are computed, and the candidates picked."""
        real = torch.promote_types(inputs.dtype, torch.float32)
        own = self._run(inputs.to(self.dtype))[owner, candidates].to(real)
        corners, strides = self.corners[candidates].to(real), self.strides[candidates].to(real)
        centres = (own[:, :2] + corners) * strides[:, None]
        halves = own[:, 2:4].exp() * strides[:, None] / 2
        boxes = torch.cat([centres - halves, centres + halves], 1)
        return Reading(
            own[:, 5:] * own[:, 4:5],
            torch.zeros_like(own[:, 4]),
            own[:, None, :4],
            clip_boxes_to_image(boxes, (inputs.shape[2], inputs.shape[3]))[:, None],
        )

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return next(self.network.parameters()).dtype

    @torch.no_grad()
    def detect(
        self, images: UInt8[Tensor, "n h w 3"], min_score: float = 0.05, max_objects: int = 100
    ) -> list[Detections]:
        """Finds objects; those of a class that overlap a likelier one by 0.5 are left out."""
        fit, inputs = self.fit((images.shape[1], images.shape[2])), self.encode(images)
        points = self.candidates(inputs, fit.input_hw)
        found = []
        for one in inputs[:, None]:
            reading = self.read(one, torch.zeros_like(points), points)
            every = torch.ones_like(points, dtype=torch.bool)
            found.append(suppress(reading, every, points, fit, min_score, max_objects))
        return found

    def lean(self, device: torch.device, precision: Precision) -> Self:
        """A frozen copy; in bf16 where that is chosen."""
        made = copy.deepcopy(self).eval().requires_grad_(False).to(device)
        if self.dtype == torch.float32:
            made.network.to(choose_dtype(precision, device))
            made.network.to(memory_format=torch.channels_last)
        return made


def _converted(path: str) -> nn.Module:
    if not Path(path).is_file():
        raise FileNotFoundError(f"detector {path} does not exist")
    try:
        import onnx2torch  # noqa: PLC0415  # an extra, which few need
    except ImportError:
        raise ImportError(
            f"onnx2torch must be installed for {path}: pip install 'rayseg[onnx]'"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies, about their future versions
            network: Any = onnx2torch.convert(path)
    except Exception as error:  # readers of damaged files raise almost anything
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} must be an ONNX network: {reason}") from None
    return fuse_silu(free_batch(network)).eval()


def free_batch(network: GraphModule) -> GraphModule:
    """Lets an exported graph take any number of images where it was written down for one.

    Its reshapes name a first size of 1, by which the channels of several images would be taken for
    cells of one; ONNX's 0 means as many as come in.
    """
    for node in network.graph.nodes:
        if node.op != "call_module":
            continue
        reshapes = type(network.get_submodule(str(node.target))).__name__ == "OnnxReshape"
        if reshapes and node.args[1].op == "get_attr":
            shape = network.get_buffer(str(node.args[1].target))
            if shape[0] == 1:
                shape[0] = 0
    return network


def fuse_silu(network: GraphModule) -> GraphModule:
    """Puts one SiLU where an exported graph multiplies x by sigmoid(x)."""
    modules = dict(network.named_modules())
    network.add_submodule("silu", nn.SiLU())
    for node in list(network.graph.nodes):
        if node.op != "call_module" or len(node.args) != 2:
            continue
        if getattr(modules[str(node.target)], "math_op_function", None) is not torch.mul:
            continue
        first, gate = node.args
        if getattr(gate, "op", "") != "call_module" or gate.args != (first,):
            first, gate = gate, first
        if getattr(gate, "op", "") != "call_module" or gate.args != (first,):
            continue
        if not isinstance(modules.get(str(gate.target)), nn.Sigmoid) or len(gate.users) != 1:
            continue
        with network.graph.inserting_before(node):
            made = network.graph.call_module("silu", (first,))
        node.replace_all_uses_with(made)
        network.graph.erase_node(node)
        network.graph.erase_node(gate)
    network.graph.lint()
    network.recompile()
    network.delete_all_unused_submodules()
    return network


def _points() -> tuple[Float[Tensor, "p 2"], Float[Tensor, " p"]]:
    """Upper left corner of each point's cell, in cells, and its stride."""
    corners, strides = [], []
    for stride in STRIDES:
        cells = torch.arange(SIDE // stride, dtype=torch.float32)
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        corners.append(torch.stack([x, y], 2).flatten(0, 1))
        strides.append(torch.full((len(cells) ** 2,), float(stride)))
    return torch.cat(corners), torch.cat(strides)
