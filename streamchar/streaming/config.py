"""What the ``stream`` stage is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from streamchar.streaming.inference_plan import NAMED

ENGINES = ("auto", *NAMED)


@dataclass
class StreamConfig:
    """One streamed clip: who speaks (picture, voice), what, with which weights, and where it goes."""

    transcript: str | None = None
    """What the character says. Not given: a default text of the run's language; empty: the character keeps quiet."""
    model: str | None = None
    """An exported character: the name of one in ``pretrained/``, or its folder (``./NAME`` where one that ships has its
    name). Not given: the run's own."""
    reference: str | None = None
    """Picture of the character (any size). Not given: the model's own prompt picture; ``none``: no reference."""
    voice: str | None = None
    """Sound file with the voice (wav, flac, mp4, ...). Not given: the model's own prompt voice; ``none``: no voice."""
    out: str | None = None
    """The mp4 to write. Not given: ``stream/clip.mp4`` of the run."""
    steps: int | None = None
    """Denoising steps per chunk. Not given: what the model was trained for (student few, teacher many)."""
    first_frames: int = 0
    """Frames of the first chunk, 1 + 4 n: fewer than the others' let a stream be heard sooner. 0: as the others."""
    seconds: float | None = None
    """Upper limit of the clip's length. Not given: until the transcript is said, at most ``limit_s``."""
    limit_s: float = 30.0
    """Length at which a clip ends although its text is not said, when ``seconds`` is not given: a pointer may stall. A
    text that takes longer needs more."""
    from_stage: str = "auto"
    """Whose weights: ``rollout``, ``dmd``, ``teacher``, or ``auto`` = the last of them that was trained."""
    role: str = "ema"
    """Which weights of that stage: ``ema``, ``student`` or ``teacher``."""
    seed: int = 0
    """Noise of the stream; the same seed, prompt and text give the same clip."""

    engine: str = "auto"
    """How the models run: ``plain``; ``bf16``; ``graphs`` (bf16 from static buffers, on CUDA as graphs); ``compiled``
    (graphs of compiled blocks: fastest, a minute of compiling first); ``fp8`` (compiled, the video path in 8 bits);
    ``auto``: graphs on a GPU, plain on a CPU."""
    overlap: bool = True
    """Decode and write a chunk while the next one is generated; the clip is the same either way."""
    live: bool = False
    """Read what to say from standard input while it speaks, line by line: ``text`` is said after the rest, ``=text`` in
    place of what is still to say, ``!text`` (or ``!`` alone) at once, cutting the word. The stream goes on, quiet where
    nothing is left to say, until the input ends; ``transcript`` is what it begins with."""
    lead_s: float = 0.5
    """How far a live stream may run ahead of its listener, who hears a line that much later (and up to two chunks)."""
    degrade: bool = True
    """Whether a live stream that falls behind takes fewer steps, then looks back at less, until it keeps up."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.steps is not None and self.steps < 1:
            found.append(f"stream.steps={self.steps} must be at least 1")
        if (self.seconds is not None and self.seconds <= 0) or self.limit_s <= 0:
            found.append(f"stream.seconds={self.seconds} and stream.limit_s={self.limit_s} must be positive")
        if self.first_frames and (self.first_frames < 5 or (self.first_frames - 1) % 4):
            found.append(f"stream.first_frames={self.first_frames} must be 0 or 1 + 4 n, for example 17")
        if self.engine not in ENGINES:
            found.append(f"stream.engine={self.engine} must be one of {', '.join(ENGINES)}")
        if self.lead_s < 0:
            found.append(f"stream.lead_s={self.lead_s} must be 0 or more seconds")
        return found
