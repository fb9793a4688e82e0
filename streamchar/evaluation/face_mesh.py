"""Real faces by MediaPipe's 478-point face mesh, from a local ``face_landmarks_detector.tflite``: points and mouth.

No face detector runs: the search starts at the whole picture (our clips are cropped to the face) and follows the mesh
from frame to frame, as MediaPipe's tracker does. Opening = distance of the inner lips (points 13 and 14) over the
distance of the outer eye corners (33 and 263), so that it does not depend on the picture's size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError

POINTS = 478
INNER_LIPS, EYE_CORNERS = (13, 14), (33, 263)
MARGIN = 1.5
PRESENCE = 0.0


class FaceMesh:
    """The mesh of one face, frame after frame.

    Raises:
        InputError: when the model file is missing or no tflite interpreter is installed.
    """

    def __init__(self, model: str | Path | None) -> None:
        if not model or not Path(model).is_file():
            raise InputError((f"face mesh model {model} does not exist" if model else "no face mesh model is given")
                             + "; put MediaPipe's face_landmarks_detector.tflite into mediapipe_face/ of "
                             "evaluate.parts=FOLDER")
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise InputError("the face mesh needs ai-edge-litert: pip install ai-edge-litert") from error
        self._net = Interpreter(str(model), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]
        outputs = self._net.get_output_details()
        self._points = next(o["index"] for o in outputs if int(np.prod(o["shape"])) == POINTS * 3)
        self._presence = next(o["index"] for o in outputs if len(o["shape"]) == 4 and int(np.prod(o["shape"])) == 1)

    def points(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(F, H, W, 3) uint8 -> (F, 478, 2) x and y in pixels; nan where no face is found."""
        out = np.full((len(frames), POINTS, 2), np.nan)
        box: tuple[float, float, float] | None = None
        for i, frame in enumerate(frames):
            found = self._landmarks(frame, box) if box is not None else None
            if found is None:
                found = self._landmarks(frame, whole(frame))
                if found is not None:  # look again, closer
                    found = self._closer(frame, found)
            box = around(found) if found is not None else None
            if found is not None:
                out[i] = found
        return out

    def _closer(self, frame: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float64]:
        again = self._landmarks(frame, around(points))
        return points if again is None else again

    def _landmarks(self, frame: NDArray[np.uint8], box: tuple[float, float, float]) -> NDArray[np.float64] | None:
        """Points (478, 2) in pixels of the frame, or None where the net sees no face in the box (cx, cy, side)."""
        from PIL import Image

        cx, cy, side = box
        crop = Image.fromarray(frame).transform((256, 256), Image.Transform.AFFINE,
                                                (side / 256, 0, cx - side / 2, 0, side / 256, cy - side / 2),
                                                Image.Resampling.BILINEAR)
        self._net.set_tensor(self._input["index"], np.asarray(crop, np.float32)[None] / 255)
        self._net.invoke()
        if float(self._net.get_tensor(self._presence).ravel()[0]) < PRESENCE:
            return None
        points = self._net.get_tensor(self._points).reshape(POINTS, 3)[:, :2].astype(np.float64)
        return points * side / 256 + np.array([cx - side / 2, cy - side / 2])


class FaceMeshMouth(FaceMesh):
    """Mouth detector over frames of one face; arguments and errors as :class:`FaceMesh`."""

    def opening(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(F, H, W, 3) uint8 -> (F,) opening in eye-corner distances, about 0 (closed) to 0.7; nan: no face found."""
        return lip_distance(self.points(frames))


def whole(frame: NDArray[np.uint8]) -> tuple[float, float, float]:
    """A square box (cx, cy, side) over the whole frame."""
    return frame.shape[1] / 2, frame.shape[0] / 2, float(max(frame.shape[:2]))


def around(points: NDArray[np.float64]) -> tuple[float, float, float]:
    """The box in which the next frame's face is looked for: the points' square with a margin."""
    low, high = points.min(0), points.max(0)
    centre = (low + high) / 2
    return float(centre[0]), float(centre[1]), float((high - low).max() * MARGIN)


def lip_distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (..., 478, 2) -> (...,) inner lip distance over eye-corner distance."""
    lips = np.linalg.norm(points[..., INNER_LIPS[0], :] - points[..., INNER_LIPS[1], :], axis=-1)
    eyes = np.linalg.norm(points[..., EYE_CORNERS[0], :] - points[..., EYE_CORNERS[1], :], axis=-1)
    return lips / np.maximum(eyes, 1e-6)
