"""A student of another size than its teacher. Plain values, free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamchar.denoiser.config import DenoiserConfig


@dataclass
class StudentConfig:
    """Size and first weights of the student that ``dmd`` and ``rollout`` train; 0: as the teacher.

    Its width and heads are the teacher's: both are given the ``c_a`` of one frozen orchestrator, which has that width.
    """

    layers: int = 0
    """Blocks. Without ``weights`` the student begins with this many of the teacher's, evenly spread, first and last
    among them."""
    ffn: int = 0
    """Hidden width of the pictures' expert; another than the teacher's needs ``weights``."""
    audio_ffn: int = 0
    """Hidden width of the sound's expert; another than the teacher's needs ``weights``."""
    weights: str | None = None
    """Folder of an exported model (stage=export) of this size whose denoiser the student begins as, for example a
    teacher that was trained small."""

    def of(self, teacher: DenoiserConfig) -> DenoiserConfig:
        """The student's architecture."""
        return replace(teacher, layers=self.layers or teacher.layers, ffn=self.ffn or teacher.ffn,
                       audio_ffn=self.audio_ffn or teacher.audio_ffn)

    def resized(self, teacher: DenoiserConfig) -> bool:
        """Whether the student is of another size."""
        return self.of(teacher) != teacher

    def misfits(self, teacher: DenoiserConfig) -> list[str]:
        """Everything that is wrong with these values beside that teacher, in words."""
        found = [f"student.{key}={getattr(self, key)} must not be negative" for key in ("layers", "ffn", "audio_ffn")
                 if getattr(self, key) < 0]
        own = self.of(teacher)
        if self.weights:
            return found
        if own.layers > teacher.layers:
            found.append(f"student.layers={own.layers} is more than the teacher's denoiser.layers={teacher.layers}, "
                         "from which it begins; give student.weights=FOLDER, an exported model of that size")
        for key in ("ffn", "audio_ffn"):
            if getattr(own, key) != getattr(teacher, key):
                found.append(f"student.{key}={getattr(own, key)} differs from denoiser.{key}={getattr(teacher, key)}, "
                             "so it cannot begin with the teacher's blocks; give student.weights=FOLDER, an exported "
                             "model of that size")
        return found
