"""What ``stage=prepare`` makes of recordings: where they are, which local models help, what is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class IntakeConfig:
    """Recordings made into shards (``stage=prepare recipe=videos input=DIR``)."""

    input: str | None = None
    """Folder of the recordings (written ``input=DIR``); sub-folders are searched too and name the speakers."""
    detector: str | None = None
    """Folder with MediaPipe's ``face_detector.tflite`` and ``face_landmarks_detector.tflite``."""
    vad: str | None = None
    """Silero's voice activity detector, ``silero_vad_16k.safetensors``."""
    asr: str | None = None
    """Local Hugging Face folder of a Whisper-class or CTC recogniser that writes missing transcripts. Not given:
    recordings without a transcript are put aside."""
    aligner: str | None = None
    """Local Hugging Face folder of a CTC model (wav2vec2 family) that finds the words' times. Not given: pocketsphinx,
    English only."""
    language: str = "en"
    """Language of the speech, told to multilingual recognisers."""
    size: int = 256
    """Side of the cropped pictures in pixels (a multiple of 8)."""
    fps: float = 25.0
    """Frames per second of the clips, whatever the recordings have."""
    sample_rate: int = 16000
    """Sound samples per second of the clips."""
    crop_scale: float = 1.9
    """Side of the crop over the side of the detected face."""
    min_s: float = 1.0
    """Shorter clips are put aside, seconds."""
    max_s: float = 20.0
    """Longest clip in seconds; longer speech is cut at its longest pauses."""
    edge_s: float = 1.0
    """Silence kept before the first and after the last word at most, seconds."""
    pause_s: float = 1.5
    """Longest pause inside a clip in seconds; at longer ones the clip is cut."""
    shot_threshold: float = 0.3
    """Share of the picture's colours that must change from one frame to the next for a new shot, 0 to 1."""
    loudness: float | None = -23.0
    """Loudness of the clips in LUFS (ITU-R BS.1770), as far as peaks stay below -1 dB; null: as recorded."""
    min_face_share: float = 0.9
    """Share of a clip's frames in which its face must be found, 0 to 1 (``no face``)."""
    max_faces: int = 1
    """Faces, each at least half as large as the largest, in a clip at most (``several faces``)."""
    min_face_px: float = 48.0
    """Side of the face in the recording's pixels at least (``small face``)."""
    min_sharpness: float = 0.02
    """Fine detail of the face over its contrast at least, 0 to 1 (``blur``): GRID faces have .05, enlarged three times
    .02."""
    max_clipped: float = 0.01
    """Share of samples at full scale at most, 0 to 1 (``clipping``)."""
    min_sync: float = 0.25
    """Correlation of mouth and sound within ``max_lag`` frames at least (``off-screen voice``); -1 keeps all. Of 30
    GRID clips of 3 s 7 % have less, and with another clip's sound 61 %; longer clips tell them better apart."""
    max_lag: int = 1
    """Frames between mouth and sound at most, each way (``off-screen voice``)."""
    min_judged_s: float = 1.0
    """Speech in a clip, first word's start to last one's end in seconds, from which on mouth and sound are compared;
    clips with less are kept and their JSON says ``sync`` null (over so little speech the correlation hardly tells
    true pairs from others)."""
    crf: int = 15
    """Quality of the H.264 pictures (lower is better)."""
    val_share: float = 0.05
    """Share of the recordings that become validation shards, at least one of them, 0 to 1."""
    shard_clips: int = 100
    """Clips per shard."""
    workers: int = 2
    """Processes that work; 0: in this process. The result does not depend on it."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = [f"intake.{name}={getattr(self, name)} must be between 0 and 1" for name in _SHARES
                 if not 0 <= getattr(self, name) <= 1]
        found += [f"intake.{name}={getattr(self, name)} must be at least {least}" for name, least in _LEAST.items()
                  if getattr(self, name) < least]
        if self.size % 8 or self.size < 32:
            found.append(f"intake.size={self.size} must be a multiple of 8 from 32 on")
        if not 0 < self.fps <= 60:
            found.append(f"intake.fps={self.fps:g} must be positive and at most 60")
        if not 8000 <= self.sample_rate <= 48000:
            found.append(f"intake.sample_rate={self.sample_rate} must be between 8000 and 48000")
        if not 0 < self.min_s < self.max_s:
            found.append(f"intake.min_s={self.min_s:g} must be positive and below max_s={self.max_s:g}")
        return found


_SHARES = ("shot_threshold", "min_face_share", "min_sharpness", "max_clipped", "val_share")
_LEAST = {"crop_scale": 1.0, "edge_s": 0.0, "pause_s": 0.0, "max_faces": 1, "min_face_px": 0.0, "min_sync": -1.0,
          "max_lag": 0, "min_judged_s": 0.0, "crf": 0, "shard_clips": 1, "workers": 0}
