"""Whose face it is, for real faces only: dlib's embedding of the aligned face in every frame.

Eye corners and the base of the nose, from MediaPipe's face mesh, are laid over dlib's mean face by the similarity that
fits best; the 150x150 picture around it goes through :class:`FaceNetwork`. dlib calls two pictures the same person
below a Euclidean distance of .6. Measured on GRID, one speaker: .17 within a clip, .23 between clips, .33 at most;
another person .91; at 96x96 pixels .16, .21 and .30. Drawn faces mean nothing to it. The face must fill most of the
picture.

Legend: F frames, P = 5 points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamchar.evaluation.face_mesh import FaceMesh
from streamchar.evaluation.face_network import CHIP, EMBEDDING, FaceNetwork
from streamchar.evaluation.tfjs_weights import read_tfjs_weights

MESH_POINTS = (263, 362, 33, 133, 2)
"""The person's left eye, outer and inner corner, right eye, outer and inner corner, base of the nose."""
MEAN_FACE = np.array([[0.8595674595992, 0.2134981538014], [0.6460604764104, 0.2289674387677],
                      [0.1205750620789, 0.2137274526848], [0.3340850613712, 0.2290642403242],
                      [0.4901123135679, 0.6277975316475]])
"""The same points in dlib's mean face (``get_face_chip_details``), in shares of its square."""
PADDING = 0.25
"""Border around that square in the chip, as the network was trained."""
BATCH = 32


class FaceIdentity:
    """Embeds faces.

    Args:
        folder: face-api's ``face_recognition_model``, manifest and weights.
        mesh_path: MediaPipe's ``face_landmarks_detector.tflite``.

    Raises:
        InputError: when a file is missing or another model, or no tflite interpreter is installed.
    """

    def __init__(self, folder: str | Path, mesh_path: str | Path | None) -> None:
        self._net = FaceNetwork().load_tfjs(read_tfjs_weights(folder)).eval()
        self._mesh = FaceMesh(mesh_path)

    @torch.no_grad()
    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(F, H, W, 3) uint8 -> (F, 128); nan where no face is found."""
        out = np.full((len(frames), EMBEDDING), np.nan)
        points = self._mesh.points(frames)[:, MESH_POINTS]  # (F, P, 2)
        seen = np.flatnonzero(np.isfinite(points).all((1, 2)))
        for first in range(0, len(seen), BATCH):
            some = seen[first:first + BATCH]
            chips = np.stack([face_chip(frames[i], points[i]) for i in some])
            out[some] = self._net(torch.from_numpy(chips).permute(0, 3, 1, 2).float()).double().numpy()
        return out


def face_distance(embeddings: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distance of (F, 128) to (128,) or to the mean of (N, 128) that are not nan -> (F,)."""
    if reference.ndim == 2:
        seen = np.isfinite(reference).all(1)
        reference = reference[seen].mean(0) if seen.any() else np.full(reference.shape[1], np.nan)
    return np.linalg.norm(embeddings - reference, axis=-1)


def face_chip(frame: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The aligned face (150, 150, 3) of a frame (H, W, 3) with the five points (P, 2) in pixels; black outside."""
    from PIL import Image

    matrix, shift = similarity_transform((PADDING + MEAN_FACE) / (2 * PADDING + 1) * CHIP, points)
    picture = Image.fromarray(frame)
    shrink = max(int(np.hypot(*matrix[:, 0])), 1)
    if shrink > 1:  # bilinear looks at four pixels only: a large face would alias
        picture = picture.reduce(shrink)
        matrix, shift = matrix / shrink, shift / shrink
    chip = picture.transform((CHIP, CHIP), Image.Transform.AFFINE, (*matrix[0], shift[0], *matrix[1], shift[1]),
                             Image.Resampling.BILINEAR)
    return np.asarray(chip)


def similarity_transform(here: NDArray[np.float64], there: NDArray[np.float64],
                         ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation with scale (2, 2) and shift (2,) that bring points (P, 2) nearest to others, by least squares.

    In complex numbers: there = a here + b, with a and b as in a regression line.
    """
    z, w = here @ [1, 1j], there @ [1, 1j]
    z_mean, w_mean = z.mean(), w.mean()
    a = np.vdot(z - z_mean, w - w_mean) / np.vdot(z - z_mean, z - z_mean)
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag], [a.imag, a.real]]), np.array([b.real, b.imag])
