"""dlib's face recognition network: a ResNet of 29 convolutions on 150x150 chips (dlib.net, King 2017; model CC0).

A stage that halves the picture adds the 2x2 mean of its input to the convolutions' output, both padded with zeros (at
the right, below, and in the channels) to the larger of the two; a batch norm is folded into a scale and an offset.

Legend: N chips, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from streamchar.errors import InputError

CHIP = 150
EMBEDDING = 128
MEAN_RGB = (122.782, 117.001, 104.298)
BLOCKS: tuple[tuple[str, int, int, bool], ...] = (
    ("conv32_1", 32, 32, False), ("conv32_2", 32, 32, False), ("conv32_3", 32, 32, False),
    ("conv64_down", 32, 64, True), ("conv64_1", 64, 64, False), ("conv64_2", 64, 64, False),
    ("conv64_3", 64, 64, False), ("conv128_down", 64, 128, True), ("conv128_1", 128, 128, False),
    ("conv128_2", 128, 128, False), ("conv256_down", 128, 256, True), ("conv256_1", 256, 256, False),
    ("conv256_2", 256, 256, False), ("conv256_down_out", 256, 256, True))
"""Name, channels in and out, and whether the stage halves the picture."""


class Layer(nn.Module):
    """Convolution, then a scale and an offset per channel."""

    def __init__(self, before: int, after: int, size: int, down: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, 2 if down else 1, 0 if down else size // 2)
        self.scale = nn.Parameter(torch.ones(after))
        self.offset = nn.Parameter(torch.zeros(after))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale[:, None, None] + self.offset[:, None, None]


class Block(nn.Module):
    """Two layers and a way around them."""

    def __init__(self, before: int, after: int, down: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = Layer(before, after, 3, down), Layer(after, after, 3, False)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x).relu())
        around = F.avg_pool2d(x, 2) if self.down else x
        c, h, w = (max(a, b) for a, b in zip(out.shape[1:], around.shape[1:], strict=True))
        return (_padded(out, c, h, w) + _padded(around, c, h, w)).relu()


def _padded(x: Tensor, c: int, h: int, w: int) -> Tensor:
    return F.pad(x, (0, w - x.shape[3], 0, h - x.shape[2], 0, c - x.shape[1]))


class FaceNetwork(nn.Module):
    """Chips (N, 3, 150, 150), grey levels 0 to 255 -> embeddings (N, 128); one person's lie within about .6."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN_RGB)[:, None, None], persistent=False)
        self.conv32_down = Layer(3, 32, 7, True)
        self.blocks = nn.ModuleDict({name: Block(before, after, down) for name, before, after, down in BLOCKS})
        self.fc = nn.Linear(256, EMBEDDING, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv32_down((chips - self.mean) / 256).relu(), 3, 2)
        for block in self.blocks.values():
            x = block(x)
        return self.fc(x.mean((2, 3)))

    def load_tfjs(self, arrays: Mapping[str, NDArray[np.float32]]) -> FaceNetwork:
        """Take the weights of face-api's ``face_recognition_model`` (see ``tfjs_weights.py``).

        Raises:
            InputError: if one is missing or has another shape.
        """
        for name, parameter in self.named_parameters():
            key = tfjs_name(name)
            if key not in arrays:
                raise InputError(f"the face network needs {key}, which is not among the {len(arrays)} weights given; "
                                 "give face-api's face_recognition_model")
            value = torch.from_numpy(arrays[key])
            value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
            if value.shape != parameter.shape:
                raise InputError(f"the weight {key} has shape {tuple(value.shape)}, {tuple(parameter.shape)} is "
                                 "expected; give face-api's face_recognition_model")
            parameter.data.copy_(value)
        return self


def tfjs_name(name: str) -> str:
    """Our parameter's name in face-api's manifest."""
    if name == "fc.weight":
        return "fc"
    name = name.removeprefix("blocks.").replace(".", "/")
    for ours, theirs in (("/conv/weight", "/conv/filters"), ("/offset", "/scale/biases"), ("/scale", "/scale/weights")):
        if name.endswith(ours):
            return name.removesuffix(ours) + theirs
    return name
