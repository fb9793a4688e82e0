"""The local models that help: opened once per process, when they are first needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from datamodules.intake.alignment import Aligner, open_aligner
from datamodules.intake.config import IntakeConfig
from datamodules.intake.face_detector import FaceDetector
from datamodules.intake.silero import SileroVad
from streamchar.errors import InputError
from streamchar.evaluation.face_mesh import FaceMeshMouth
from streamchar.evaluation.recogniser import Recogniser

DETECTOR, MESH = "face_detector.tflite", "face_landmarks_detector.tflite"


@dataclass(frozen=True)
class ModelPaths:
    """Where the models are, as the options name them."""

    detector: str | None
    vad: str | None
    asr: str | None
    aligner: str | None
    language: str

    @classmethod
    def of(cls, cfg: IntakeConfig) -> ModelPaths:
        """The paths of a configuration."""
        return cls(cfg.detector, cfg.vad, cfg.asr, cfg.aligner, cfg.language)

    def check(self, faces: bool) -> None:
        """Refuse missing files before anything is read.

        Raises:
            InputError: naming every missing file and where it may come from.
        """
        wrong = []
        if not self.vad or not Path(self.vad).is_file():
            wrong.append(f"intake.vad={self.vad}: expected silero_vad_16k.safetensors (snakers4/silero-vad, folder "
                         "src/silero_vad/data)")
        for name in (DETECTOR, MESH) if faces else ():
            if not self.detector or not (Path(self.detector) / name).is_file():
                wrong.append(f"intake.detector={self.detector}: expected a folder with {name} (inside MediaPipe's "
                             "face_landmarker.task, which is a zip archive)")
        for option, folder in (("asr", self.asr), ("aligner", self.aligner)):
            if folder and not (Path(folder) / "config.json").is_file():
                wrong.append(f"intake.{option}={folder}: expected a local Hugging Face folder with config.json")
        if wrong:
            raise InputError("; ".join(wrong))


class Models:
    """The models of one process; each attribute loads its model at first use."""

    def __init__(self, paths: ModelPaths) -> None:
        self.paths = paths

    @cached_property
    def vad(self) -> SileroVad:
        """Voice activity."""
        return SileroVad.load(self.paths.vad or "")

    @cached_property
    def aligner(self) -> Aligner:
        """Times of known words."""
        return open_aligner(self.paths.aligner)

    @cached_property
    def recogniser(self) -> Recogniser | None:
        """Words of unknown speech; None where no model is given."""
        from streamchar.evaluation.asr import NetworkRecogniser

        return NetworkRecogniser(self.paths.asr, self.paths.language) if self.paths.asr else None

    @cached_property
    def detector(self) -> FaceDetector:
        """Faces in a picture."""
        return FaceDetector(Path(self.paths.detector or "") / DETECTOR)

    @cached_property
    def mouth(self) -> FaceMeshMouth:
        """Mouth opening in a crop."""
        return FaceMeshMouth(Path(self.paths.detector or "") / MESH)


@lru_cache(maxsize=1)
def open_models(paths: ModelPaths) -> Models:
    """The models of this process."""
    return Models(paths)
