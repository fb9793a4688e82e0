"""Faces in a picture by MediaPipe's short-range BlazeFace, from a local ``face_detector.tflite``.

The network sees 128x128 pixels and answers with 896 anchors (Bazarevsky et al., "BlazeFace", arXiv 1907.05047). It
misses faces that are small in its view, so a picture is shown whole and again in squares along its longer side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError

VIEW = 128
MIN_SCORE = 0.75
"""Turned faces reach .9, the back of a head .68."""
OVERLAP = 0.3
"""Boxes that share more (of the smaller one, since views cut faces differently) are the same face."""
GRIDS = ((16, 2), (8, 6))
"""(cells each way, anchors per cell) of the two feature maps."""


@dataclass(frozen=True)
class Face:
    """A box in pixels, x to the right and y down, and the network's confidence, 0 to 1."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float

    @property
    def side(self) -> float:
        """Mean of width and height."""
        return (self.x1 - self.x0 + self.y1 - self.y0) / 2

    def shared(self, other: Face) -> float:
        """Common area over that of the smaller box, 0 to 1."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0) * max(height, 0) / max(min(self._area, other._area), 1e-9)

    @property
    def _area(self) -> float:
        return (self.x1 - self.x0) * (self.y1 - self.y0)


class FaceDetector:
    """Finds faces in single pictures.

    Raises:
        InputError: when the model file is missing or no tflite interpreter is installed.
    """

    def __init__(self, model: str | Path) -> None:
        if not Path(model).is_file():
            raise InputError(f"face detector {model} does not exist; put MediaPipe's face_detector.tflite there "
                             "(intake.detector=FOLDER)")
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError("the face detector needs ai-edge-litert: pip install .[eval]") from error
        self._net = Interpreter(str(model), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._boxes, self._scores = (next(o["index"] for o in self._net.get_output_details() if o["shape"][-1] == n)
                                     for n in (16, 1))
        self._anchors = anchors()

    def find(self, frame: NDArray[np.uint8]) -> list[Face]:
        """Faces of a picture (H, W, 3) uint8, the surest first."""
        height, width = frame.shape[:2]
        views = [(0.0, 0.0, float(max(height, width)))]
        short, long = min(height, width), max(height, width)
        if long > 1.2 * short:
            steps = int(np.ceil((long - short) / (short / 2)))
            places = [(long - short) * i / steps for i in range(steps + 1)]
            views += [(p, 0.0, float(short)) if width > height else (0.0, p, float(short)) for p in places]
        found = sorted((f for v in views for f in self._look(frame, *v)), key=lambda f: -f.score)
        kept: list[Face] = []
        for face in found:
            if all(face.shared(k) < OVERLAP for k in kept):
                kept.append(face)
        return kept

    def _look(self, frame: NDArray[np.uint8], x: float, y: float, side: float) -> list[Face]:
        """Faces in the square view at (x, y); what lies outside the picture is black."""
        from PIL import Image

        crop = Image.fromarray(frame).crop((round(x), round(y), round(x + side), round(y + side)))
        pixels = np.asarray(crop.resize((VIEW, VIEW), Image.Resampling.BOX if side > VIEW else
                                        Image.Resampling.BILINEAR), np.float32)
        self._net.set_tensor(self._input, pixels[None] / 127.5 - 1)
        self._net.invoke()
        scores = 1 / (1 + np.exp(-np.clip(self._net.get_tensor(self._scores)[0, :, 0], -80, 80)))
        sure = np.flatnonzero(scores > MIN_SCORE)
        raw = self._net.get_tensor(self._boxes)[0][sure]
        return [Face(x + (cx - w / 2) * side, y + (cy - h / 2) * side, x + (cx + w / 2) * side,
                     y + (cy + h / 2) * side, float(s))
                for (cx, cy), (w, h), s in zip(self._anchors[sure] + raw[:, :2] / VIEW, raw[:, 2:4] / VIEW,
                                               scores[sure], strict=True)]


def anchors() -> NDArray[np.float64]:
    """Centres (896, 2) of the anchors in shares of the view, in the order of the network's outputs."""
    rows = []
    for cells, each in GRIDS:
        middle = (np.arange(cells) + 0.5) / cells
        ys, xs = np.meshgrid(middle, middle, indexing="ij")
        rows.append(np.repeat(np.stack([xs.ravel(), ys.ravel()], 1), each, axis=0))
    return np.concatenate(rows)
