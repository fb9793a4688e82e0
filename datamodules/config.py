"""Options of the data: where clips come from, how they are cut into latents, how items are composed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

RECORDED, AGAIN = "recorded", "again"
"""Sets of a run with ``respoken`` clips."""


@dataclass
class RespokenConfig:
    """Clips of sound alone that ``stage=encode`` makes of the train clips' words (docs/data.md); for sets of a fixed
    grammar, or with ``switch_p=0`` for any."""

    times: int = 0
    """New clips for every clip; 0: none."""
    share: float = 0.5
    """Their share of what the orchestrator hears, whatever ``times`` is; in ``data.mix`` they count to their words'
    set."""
    joint_share: float = 0.0
    """Their share of the teacher's items, as sound without pictures; 0: the teacher sees recorded clips alone."""
    switch_p: float = 0.5
    """Chance, from word to word, to go on with another clip nearby in the shard: the same named speaker's, of as many
    words. No sentence of a validation clip is made."""
    speeds: list[float] = field(default_factory=lambda: [0.92, 0.96, 1.0, 1.04, 1.08])
    """Speeds (of pitch too) that are drawn from; at each the voice counts as another speaker's."""
    sentences: int = 1
    """At most so many sentences in a row in a new clip, drawn from one on. Where the recorded clips hold one each,
    nothing else tells how one follows another, as in a stream."""
    pause_s: float = 0.3
    """At most so much quiet between two of them, drawn from 0 on, before the speed."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.times < 0:
            found.append(f"data.respoken.times={self.times} must not be negative")
        if not 0 < self.share < 1:
            found.append(f"data.respoken.share={self.share} must be above 0 and below 1")
        if not 0 <= self.joint_share < 1:
            found.append(f"data.respoken.joint_share={self.joint_share} must be at least 0 and below 1")
        if self.joint_share and not self.times:
            found.append(f"data.respoken.joint_share={self.joint_share} is a share of what data.respoken.times=0 does "
                         "not make: give times=1 or more, or joint_share=0")
        if not 0 <= self.switch_p <= 1:
            found.append(f"data.respoken.switch_p={self.switch_p} must be between 0 and 1")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            found.append(f"data.respoken.speeds={self.speeds} must hold speeds between 0.5 and 2")
        if self.sentences < 1:
            found.append(f"data.respoken.sentences={self.sentences} must be at least 1")
        if self.pause_s < 0:
            found.append(f"data.respoken.pause_s={self.pause_s} must not be negative")
        return found


@dataclass
class DataConfig:
    """Shards, latents and the composition of training items."""

    shards: Any = None
    """Train shards: a folder of tars ("val" in the name: validation), a tar, a glob, a brace list, an address
    (https://, s3://, pipe: and a command), a list of these; none: prepare's."""
    val_shards: Any = None
    """Validation shards, in the same forms; none: the tars named "val" beside the train shards."""
    speech_shards: Any = None
    """Further shards of speech without pictures, for the orchestrator; none: no further ones."""
    respoken: RespokenConfig = field(default_factory=RespokenConfig)
    latents: str | None = None
    """Latents made elsewhere, instead of shards: the encode folder of another run, or its address (https://, s3://,
    or pipe: and a command with {} in the place of the file's name); codecs come along, latents through the cache."""
    mix: Any = None
    """Several sets with weights, instead of data.shards: {NAME: {shards: as data.shards, weight: 1.0}, ...}. Items come
    from each set in proportion to its weight whatever its size; the dashboard shows the losses of each."""
    size: int = 96
    """Side of the square picture in pixels; clips of another size are cropped at the centre and resized."""
    phases: int = 4
    """Offsets at which every clip is cut into chunks: phase p starts at p / phases of a chunk."""
    latent_dtype: str = "float16"
    """Type of stored latents: float16 or float32."""
    codec_clips: int = 32
    """Train clips on which the embedded codecs are fitted."""
    max_clips: int = 0
    """Train clips encoded at most (validation too); 0: all."""
    encode_workers: int = 0
    """Processes that encode; each takes whole shards. 0: one per core, or none beside this one for small sets."""
    max_bad_share: float = 0.2
    """Share of unusable clips (damaged, no sound, NaN in latents) above which a run stops."""
    batch_size: int = 16
    """Items per optimiser step and rank."""
    val_items: int = 64
    """Fixed validation items over all ranks together, rounded up to whole batches on every rank."""
    val_streams: int = 16
    """The same for the rollout stage, whose items are streams of several chunks."""
    num_workers: int = 0
    """Loader processes per rank; 0 composes in the training process (fast enough for stored latents)."""
    shuffle_shards: int = 0
    """Shards inside which clips are shuffled together; 0: all, in large sets as many as hold a million chunks."""
    chunk_starts: str = "phases"
    """Where chunks may start: phases (all offsets) or grid (offset 0 only, as a stream from the start sees it)."""
    anywhere_p: float = 0.0
    """Share of the items of sound alone, other than first chunks and quiet ones, that start at any latent from a clip's
    first word to its last, after another utterance where the clip has said too little. In clips of two chunks only so
    is speech heard right to the end of a chunk that goes on."""
    first_chunk_p: float = 0.2
    """Share of first chunks: no motion, no sink, no recent sound."""
    first_phase_p: float = 0.2
    """Share of the first chunks that start at another offset than the clip's start."""
    sink_other_p: float = 0.5
    """Share of sinks from another clip of the same look."""
    ref_other_p: float = 0.5
    """Share of references from another clip of the same look."""
    quiet_p: float = 0.06
    """Share of items with no text left and a quiet target."""
    anchor_drop_p: float = 0.1
    """Share of items without a voice anchor."""
    anchor_short_p: float = 0.2
    """Share of anchors shorter than the full length, uniformly."""
    history_full_p: float = 0.0
    """Share of items with the full recent history; the rest has a length ~ U(0, recent_s)."""
    pointer_jitter: float = 0.12
    """Standard deviation of the pointer's error at the chunk's start, in words."""
    more_text_p: float = 0.0
    """Share of items whose text goes on with another clip's words, so that the clip's end is no end of text."""
    rare_words: float = 0.0
    """What the sound of rare words weighs in the orchestrator's loss: (seconds in which the commonest sounds /
    those of this one) to this power, at most 8; 0: all sound alike. Held-out losses weigh all sound alike."""
    rollout_chunks: int = 8
    """Chunks that a rollout's transcript must outlast."""
    end_inside_p: float = 0.15
    """Share of rollouts whose transcript ends inside them."""
    real_start_p: float = 0.2
    """Share of rollouts that begin from real motion (then with a real sink and real sound)."""
    overfit_clips: int = 0
    """Use only this many train clips, for validation too; 0: all."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = [f"data.{name}={getattr(self, name)} must be between 0 and 1" for name in _SHARES
                 if not 0 <= getattr(self, name) <= 1]
        found += [f"data.{name}={getattr(self, name)} must be at least {least}" for name, least in _LEAST.items()
                  if getattr(self, name) < least]
        if self.size % 8:
            found.append(f"data.size={self.size} must be a multiple of 8, for example {self.size // 8 * 8 + 8}")
        if self.latents and (self.shards is not None or self.val_shards is not None or self.speech_shards is not None):
            found.append("data.latents names clips that are encoded already: leave data.shards, data.val_shards and "
                         "data.speech_shards out")
        found += self._mix_problems()
        if self.latents and self.latents.startswith("pipe:") and "{}" not in self.latents:
            found.append(f"data.latents={self.latents} needs {{}} where the file's name goes")
        if self.chunk_starts not in ("phases", "grid"):
            found.append(f"data.chunk_starts={self.chunk_starts!r} must be 'phases' or 'grid'")
        if self.latent_dtype not in ("float16", "float32"):
            found.append(f"data.latent_dtype={self.latent_dtype!r} must be 'float16' or 'float32'")
        return found

    def _mix_problems(self) -> list[str]:
        if self.mix is None:
            return []
        if not isinstance(self.mix, dict) or not self.mix:
            return [f"data.mix={self.mix!r} must be {{NAME: {{shards: ..., weight: ...}}, ...}}"]
        found = []
        if self.shards is not None or self.speech_shards is not None:
            found.append("data.mix names the sets: move data.shards and data.speech_shards into it")
        if self.respoken.joint_share:
            found.append(f"data.respoken.joint_share={self.respoken.joint_share} cannot stand beside data.mix, where "
                         "words said again are a part of their words' set: give joint_share=0")
        for name, given in self.mix.items():
            if not isinstance(given, dict) or set(given) - {"shards", "weight"}:
                found.append(f"data.mix.{name}={given!r} must be {{shards: ..., weight: ...}}")
            elif not isinstance(given.get("weight", 1.0), (int, float)) or given.get("weight", 1.0) < 0:
                found.append(f"data.mix.{name}.weight={given['weight']!r} must be a number, at least 0")
            elif self.latents is None and "shards" not in given:
                found.append(f"data.mix.{name} needs shards=")
        return found

    def weights(self, sets: Collection[str], again: float) -> dict[str, float]:
        """Weight of each of the ``sets`` that latents hold: of ``mix``, or of what was recorded and what is said
        ``again``; empty without sets."""
        if self.mix is None and AGAIN in sets:
            return {RECORDED: 1 - again, AGAIN: again}
        return {str(name): float(given.get("weight", 1.0)) for name, given in (self.mix or {}).items()}


_SHARES = ("max_bad_share", "anywhere_p", "first_chunk_p", "first_phase_p", "sink_other_p", "ref_other_p", "quiet_p",
           "anchor_drop_p", "anchor_short_p", "history_full_p", "more_text_p", "rare_words", "end_inside_p",
           "real_start_p")
_LEAST = {"size": 8, "phases": 1, "codec_clips": 1, "max_clips": 0, "encode_workers": 0, "batch_size": 1,
          "val_items": 1, "val_streams": 1, "num_workers": 0, "shuffle_shards": 0, "pointer_jitter": 0,
          "rollout_chunks": 1, "overfit_clips": 0}
