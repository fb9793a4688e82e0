"""What the ``evaluate`` stage measures."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("plain", "bf16", "fp8")


@dataclass
class EvaluateConfig:
    """How many held-out clips are streamed, with which weights, and which measures are taken."""

    protocol: str = "short"
    """``short``: held-out clips and new sentences, a few seconds each; ``long``: streams of ``stream_s`` seconds, with
    and without sink and pointer."""
    folder: str | None = None
    """Score the clips of this folder in place of a model (written ``clips=DIR``): ``KEY.mp4`` with ``KEY.json`` or
    ``KEY.txt`` (the text), and where there is one ``KEY.png``, the reference picture."""
    clips: int = 4
    """Held-out clips streamed and scored per model."""
    new_sentences: int = 0
    """Sentences of the GRID grammar that the training texts do not hold, streamed with the held-out clips' prompts."""
    seeds: int = 1
    """Sampling seeds: every clip and sentence is streamed with each of them."""
    cheats: bool = False
    """Also score what must come out badly: a still picture, another clip's sound, one sentence for all, noise."""
    parts: str | None = None
    """Folder of the measuring networks; each that is there is used: ``mediapipe_face/face_landmarks_detector.tflite``,
    ``face_identity/``, ``speaker_identity/*.pt``, ``dnsmos/``, ``asr/`` (a Hugging Face recogniser),
    ``syncnet/syncnet_v2.model``, ``inception/inception-2015-12-05.pt``, ``i3d/i3d_torchscript.pt``."""
    quality_clips: int = 12
    """Clips per column that the slow devices (voice quality) listen to."""
    pointer_items: int = 64
    """Real held-out chunks on which the pointer is compared with the constant-rate guess."""
    seconds: float = 12.0
    """Upper limit of each generated stream."""
    drift_s: float = 20.0
    """Length of the one long stream on which drift over time and speed are measured; 0 = none."""
    from_stage: str = "auto"
    """Whose weights are evaluated: ``rollout``, ``dmd``, ``teacher``, ``auto`` = the last trained of these, or
    ``orchestrator``: its own head alone, sound without pictures."""
    steps: int | None = None
    """Denoising steps. Not given: what the model was trained for."""
    precision: str = "plain"
    """What the models compute in: ``plain`` (as they were loaded), ``bf16`` or ``fp8``, rounded as the streaming
    engines of these names round, not compiled."""
    teacher: bool = False
    """Also stream with the teacher, beside the student: at ``teacher_steps``, and at as many steps as the student."""
    teacher_steps: int = 50
    """Steps of that teacher."""
    words: bool = True
    """Recognise the words of real, codec, generated, shuffled and noise sound (needs pocketsphinx)."""
    mouth: str = "auto"
    """Mouth detector: ``puppet`` (colours), ``mesh`` (real faces, from ``parts``) or ``auto`` = by the data."""
    max_lag: int = 10
    """Frames of lag between mouth and sound that are searched, each way."""
    drift_window_s: float = 1.32
    """Length of the windows whose features are compared over the stream."""
    gate: bool = False
    """At the end: does a model that learnt up to 8 clips by heart say them again, from files, its data moved away?
    The stage fails where it does not (see ``evaluate/gate/``)."""
    syncnet_clips: int = 0
    """Recorded training clips that our SyncNet is trained on (some 3 minutes of one core, once per run); 0: none. Its
    numbers are its own: published ones come from ``syncnet/syncnet_v2.model``. With ``clips=DIR`` it is that of the run
    ``name=``, whose report the clips' then replaces."""
    streams: int = 5
    """Streams of the long protocol."""
    stream_s: float = 60.0
    """Seconds of each of them; their transcripts outlast it."""
    windows: int = 5
    """Equal parts of a long stream whose scores are compared."""
    seed: int = 1234
    """Noise of the evaluation streams."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.protocol not in ("short", "long"):
            found.append(f"evaluate.protocol={self.protocol!r} must be short or long")
        if self.folder and (self.gate or self.protocol == "long"):  # a teacher that a preset sets does no harm
            found.append("clips=DIR scores clips that are there: evaluate.gate=false and protocol=short are wanted, "
                         "since the others need a model")
        if self.new_sentences < 0 or self.seeds < 1 or self.quality_clips < 1:
            found.append(f"evaluate.new_sentences={self.new_sentences} must not be negative, seeds={self.seeds} and "
                         f"quality_clips={self.quality_clips} at least 1")
        if self.streams < 1 or self.windows < 3 or self.stream_s <= 0:
            found.append(f"evaluate.streams={self.streams} must be at least 1, windows={self.windows} at least 3 and "
                         f"stream_s={self.stream_s} positive")
        if self.precision not in PRECISIONS:
            found.append(f"evaluate.precision={self.precision} must be one of {', '.join(PRECISIONS)}")
        if self.precision != "plain" and self.from_stage == "orchestrator":
            found.append(f"evaluate.precision={self.precision} is for a model with pictures: leave it out with "
                         "from_stage=orchestrator")
        if self.clips < 1:
            found.append(f"evaluate.clips={self.clips} must be at least 1")
        if self.seconds <= 0 or self.drift_s < 0:
            found.append(f"evaluate.seconds={self.seconds} must be positive, drift_s={self.drift_s} not negative")
        if self.mouth not in ("auto", "puppet", "mesh"):
            found.append(f"evaluate.mouth={self.mouth!r} must be auto, puppet or mesh")
        if self.max_lag < 1:
            found.append(f"evaluate.max_lag={self.max_lag} must be at least 1")
        if self.steps is not None and self.steps < 1:
            found.append(f"evaluate.steps={self.steps} must be at least 1")
        return found
