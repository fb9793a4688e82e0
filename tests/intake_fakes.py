"""Small videos of a drawn talker, and models that see it: the intake without any network's weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from datamodules.intake.config import IntakeConfig
from datamodules.intake.face_detector import Face
from datamodules.intake.models import DETECTOR, MESH, ModelPaths
from datamodules.intake.rejection import Rejected
from datamodules.intake.sample import Sample
from datamodules.intake.sources import Source
from streamchar.transcript import Word

RATE, SIZE = 16000, 96
FACE = Face(24.0, 20.0, 72.0, 68.0, 0.9)
MOUTH = (slice(52, 60), slice(40, 56))
"""Rows and columns whose brightness is the mouth's opening."""


def syllables(seconds: float, speech: tuple[tuple[float, float], ...], seed: int = 0) -> np.ndarray:
    """Loudness (0 to 1) per sample: irregular syllables inside the spans, silence outside."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    level = np.zeros(len(t))
    for start, end in speech:
        at = start
        while at < end:
            length = min(rng.uniform(0.1, 0.3), end - at)
            inside = (t >= at) & (t < at + length)
            level[inside] = rng.uniform(0.4, 1.0) * np.sin(np.pi * (t[inside] - at) / length) + 0.02
            at += length
    return level


def draw(level: np.ndarray, fps: float, colour: int = 90) -> np.ndarray:
    """(F, SIZE, SIZE, 3): a textured head whose mouth is as bright as the sound is loud."""
    count = int(len(level) / RATE * fps + 1e-6)
    texture = np.random.default_rng(3).integers(-30, 30, (SIZE, SIZE, 1))
    frames = np.repeat(np.clip(colour + texture, 0, 255).astype(np.uint8)[None].repeat(3, -1), count, 0)
    for i in range(count):
        frames[i, MOUTH[0], MOUTH[1]] = int(40 + 200 * level[int((i + 0.5) / fps * RATE)])
    return frames


def write_video(path: Path, frames: np.ndarray, level: np.ndarray | None, fps: float = 25.0,
                times: np.ndarray | None = None, sound_from: float = 0.0) -> Path:
    """An mp4 of frames (at ``times`` in seconds, for a variable rate) and of a tone as loud as ``level``."""
    with av.open(str(path), "w") as box:
        video = box.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        video.options = {"crf": "10", "preset": "ultrafast", "threads": "1", "bf": "0"}
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        sound = None
        if level is not None:
            sound = box.add_stream("aac", rate=RATE, layout="mono")
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = round(times[i] * 1000), Fraction(1, 1000)
            box.mux(video.encode(picture))
        box.mux(video.encode(None))
        if sound is not None and level is not None:
            wave = (0.5 * level * np.sin(2 * np.pi * 300 * np.arange(len(level)) / RATE)).astype(np.float32)
            piece = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            piece.rate, piece.pts, piece.time_base = RATE, round(sound_from * RATE), Fraction(1, RATE)
            box.mux(sound.encode(piece))
            box.mux(sound.encode(None))
    return path


class FakeModels:
    """See :class:`datamodules.intake.models.Models`; ``faces``: what the detector finds in every picture."""

    def __init__(self, paths: ModelPaths, faces: tuple[Face, ...] = (FACE,)) -> None:
        self.paths, self.recogniser = paths, None
        self.detector, self.mouth, self.aligner = _Detector(faces), _Mouth(), _Aligner()

    def vad(self, wave: torch.Tensor) -> torch.Tensor:
        """Speech is what is loud, per 512 samples."""
        parts = torch.nn.functional.pad(wave, (0, -len(wave) % 512)).reshape(-1, 512)
        return (parts.abs().amax(1) > 0.01).float()


class _Detector:
    def __init__(self, faces: tuple[Face, ...]) -> None:
        self.faces = faces

    def find(self, frame: np.ndarray) -> list[Face]:
        return list(self.faces)


class _Mouth:
    def opening(self, frames: np.ndarray) -> np.ndarray:
        size = frames.shape[1]
        rows = slice(round(size * 0.45), round(size * 0.8))
        middle = slice(round(size * 0.4), round(size * 0.6))
        return frames[:, rows, middle].astype(np.float64).max(axis=(1, 2, 3))


class _Aligner:
    def align(self, wave: torch.Tensor, words: list[str]) -> list[Word] | None:
        """As many words in each stretch of loud sound, evenly spread; "unheard" fits no sound."""
        if "unheard" in words:
            return None
        loud = (torch.nonzero(wave.abs() > 0.01).ravel() / RATE).numpy()
        stretches = np.split(loud, np.flatnonzero(np.diff(loud) > 0.5) + 1)
        found: list[Word] = []
        for stretch, part in zip(stretches, np.array_split(words, len(stretches)), strict=True):
            edges = np.linspace(stretch[0], stretch[-1], len(part) + 1)
            found += [Word(str(w), float(a), float(b)) for w, a, b in zip(part, edges, edges[1:], strict=False)]
        return found


def fake_options(folder: Path, **more: object) -> IntakeConfig:
    """Options whose model files exist (empty) and whose input is ``folder / "in"``."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    for name in (DETECTOR, MESH, "vad.safetensors"):
        (models / name).write_bytes(b"")
    values = {"input": str(folder / "in"), "detector": str(models), "vad": str(models / "vad.safetensors"), "size": 64,
              "workers": 0, "min_face_px": 20.0, "min_sharpness": 0.0, **more}
    return IntakeConfig(**values)  # type: ignore[arg-type]


def rows(folder: Path, name: str) -> list[dict]:
    """Of a file of a JSON object per line that prepare wrote."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def small_files(folder: Path, count: int) -> None:
    """A speaker's folders of sounds that nobody decodes, with their text."""
    for number in range(count):
        speaker = folder / f"s{number // 50:03d}"
        speaker.mkdir(parents=True, exist_ok=True)
        (speaker / f"{number:05d}.mp3").write_bytes(b"x")
        (speaker / f"{number:05d}.txt").write_text("hello")


def take_nothing(source: Source, cfg: IntakeConfig, models: object) -> Iterator[Sample]:
    """A clip of a recording as if it had been heard: nine in ten; the tenth is put aside."""
    if source.key.endswith("7"):
        raise Rejected("no speech", "nothing is heard")
    meta = {"speaker": source.speaker, "text": f"{source.key} " * 10, "measured": {"lufs": -23.0, "gain_db": 3.0}}
    yield Sample(f"{source.key}-0000", {"wav": b"x", "json": json.dumps(meta).encode()}, 3.25)
