"""Composing one training item: a chunk of a clip with all that a stream would know at its start (design, section 8).

Every choice is drawn from the random numbers of the item's position, so an item is a pure function of
(seed, position) and the data. Latents are clean here; noise on history and motion and the dropping of conditions
belong to the training step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from datamodules.config import AGAIN, DataConfig
from datamodules.draws import Draws
from datamodules.latent_clip import LatentClip
from datamodules.latent_shards import LatentStore
from datamodules.mixture import MixedOrder, mixed_order
from datamodules.order import GlobalOrder
from datamodules.partners import Partners
from datamodules.past import past_of
from datamodules.rare_words import RareWords
from streamchar.clock import ChunkClock
from streamchar.errors import DataError
from streamchar.transcript import SplitText, TextUnits, Transcript, Word, split_transcript, word_position_at
from streamchar.window import WindowConfig

REPLACEMENTS = 100


class Place(NamedTuple):
    """A chunk of a clip: phase offset number, chunk number in that phase, and the role it plays.

    ``latent``: the audio latent of phase 0 at which it starts instead, as chunk 0 of a grid of its own (sound alone).
    """

    clip: LatentClip
    phase: int
    chunk: int
    first: bool
    quiet: bool
    latent: int | None = None


@dataclass(slots=True)
class ChunkItem:
    """One item before collation, arrays as stored; None stands for a group that is missing.

    ``words``: the transcript that ``text`` was split from, in the clip's seconds; only for those who look at items.
    ``group``: the set of a mixture. ``emphasis``: weights of the audio latents in the loss; None: all alike.
    """

    place: Place
    position: int
    video: np.ndarray | None
    audio: np.ndarray
    ref: np.ndarray | None
    motion: np.ndarray | None
    sink: np.ndarray | None
    past: np.ndarray | None
    anchor: np.ndarray
    recent: np.ndarray
    text: SplitText
    pointer: float
    words: list[Word] = field(default_factory=list)
    group: str = ""
    emphasis: np.ndarray | None = None


class CachedUnits(dict[str, list[list[int]]]):
    """Text units remembered per word (spelling the same words again would dominate an item's time)."""

    def __init__(self, units: TextUnits) -> None:
        super().__init__()
        self.units, self.width = units, units.width

    encode = dict.__getitem__

    def __missing__(self, word: str) -> list[list[int]]:
        found = self[word] = self.units.encode(word)
        return found


class ItemComposer:
    """Chunk items of a store by position.

    Args:
        store: encoded clips.
        clock, window, units: of the run.
        cfg: shares and lengths.
        seed: of order and choices.
        with_video: False composes sound and text only (the orchestrator's stage), from clips without pictures too.
        joint_share: of words said again beside clips with pictures, as items of sound (the teacher's stage).
        rare_words: exponent of rare words' weight, see :class:`RareWords` (the orchestrator's stage).
    """

    def __init__(self, store: LatentStore, clock: ChunkClock, window: WindowConfig, units: TextUnits, cfg: DataConfig,
                 seed: int, with_video: bool = True, joint_share: float = 0.0, rare_words: float = 0.0) -> None:
        self.store, self.clock, self.window, self.cfg, self.seed = store, clock, window, cfg, seed
        self.units = CachedUnits(units)
        self.with_video = with_video
        self.weights = cfg.weights(store.sets, joint_share if with_video else cfg.respoken.share)
        self.chunk_s = float(clock.chunk_seconds)
        self.draws = Draws(seed)
        self._audio_starts: dict[int, int] = {}
        self._carried = clock.audio_latents
        self._sizes = window.anchor_latents(clock), window.recent_latents(clock), window.past_latents(clock)
        self.order = self._order(self._visits(joint_share))
        store.tell_window(self.order.window)
        self.partners = Partners(store, clock, cfg, in_shard=self.order.windowed)
        self.rare = RareWords(store, rare_words) if rare_words else None
        if not self.order.epoch_length:
            raise DataError(f"{store.folder} holds no clip with pictures; give shards of paired clips as data.shards")

    def _order(self, visits: np.ndarray) -> GlobalOrder | MixedOrder:
        bounds, window = self.store.table.bounds, self.cfg.shuffle_shards
        if not self.weights:
            return GlobalOrder(bounds, visits, self.seed, window)
        return mixed_order(self.store.sets, self.weights, bounds, visits, self.seed, window)

    def _visits(self, joint_share: float) -> np.ndarray:
        """(clips,) visits per epoch: as many as a clip has chunks."""
        columns, bounds = self.store.table.columns, self.store.table.bounds
        visits = np.maximum(np.rint(columns["seconds"] / self.chunk_s), 1)
        if self.with_video:
            taken = columns["video"].astype(bool)
            if joint_share:
                first, end = self.store.sets[AGAIN]
                taken[bounds[first]:bounds[end]] = True
            visits *= taken
        if self.cfg.overfit_clips:
            visits[self.cfg.overfit_clips:] = 0
        return visits

    def clip_at(self, position: int, rng: np.random.Generator) -> LatentClip:
        """The clip of a position, or a replacement drawn with ``rng`` where that one is quarantined."""
        clip = self.store.clips[self.order.clip(position)]
        for _ in range(REPLACEMENTS):
            if self.store.usable(clip):
                return clip
            clip = self.store.clips[self.order.clip(int(rng.integers(self.order.epoch_length)))]
        raise DataError(f"no usable clip found in {self.store.folder} after {REPLACEMENTS} tries; "
                        f"run stage=encode again")

    def item(self, position: int) -> ChunkItem:
        """The item at a position of the global order."""
        rng = self.draws.at(position)
        clip = self.clip_at(position, rng)
        return self.compose(self.choose(clip, rng), position, rng)

    def start(self, place: Place) -> float:
        """Second of the clip at which the place's chunk starts."""
        if place.latent is not None:
            return place.latent / float(self.clock.audio_rate)
        return place.clip.facts(self.clock).origins[place.phase] + place.chunk * self.chunk_s

    def choose(self, clip: LatentClip, rng: np.random.Generator) -> Place:
        """Draw the role (first, quiet, neither) and a chunk that can play it."""
        facts = clip.facts(self.clock)
        first, quiet = bool(rng.random() < self.cfg.first_chunk_p), bool(rng.random() < self.cfg.quiet_p)
        if quiet:
            phase = self.partners.phase(rng)
            chunk = rng.integers(facts.spoken[phase], clip.record.phases[phase].chunks)
            return Place(clip, phase, int(chunk), first, True)
        if first:
            return Place(clip, self._first_phase(clip, rng), 0, True, False)
        if self.cfg.anywhere_p and not (self.with_video and clip.has_video) and rng.random() < self.cfg.anywhere_p:
            return Place(clip, 0, 0, False, False, self._anywhere(clip, rng))
        inner = facts.inner[:1] if self.cfg.chunk_starts == "grid" else facts.inner
        inner = inner if any(inner) else [1]
        at = int(rng.integers(sum(inner)))
        for phase, count in enumerate(inner):
            if at < count:
                return Place(clip, phase, at + 1, False, False)
            at -= count
        raise AssertionError("unreachable: the counts cover every draw")

    def _anywhere(self, clip: LatentClip, rng: np.random.Generator) -> int:
        """An audio latent of phase 0 from the first word's start to the last one's end; all of the chunk is stored."""
        rate, (begin, end) = float(self.clock.audio_rate), clip.facts(self.clock).speech
        last = min(math.ceil(end * rate) - 1, len(clip.audio(0)) - self._carried)
        return int(rng.integers(min(math.ceil(begin * rate), last), last + 1))

    def _first_phase(self, clip: LatentClip, rng: np.random.Generator) -> int:
        """Mostly the clip's start; a stream may also begin at an offset that cuts no word."""
        if rng.random() >= self.cfg.first_phase_p:
            return 0
        phase = self.partners.phase(rng)
        t = clip.facts(self.clock).origins[phase]
        return 0 if any(w.start < t < w.end for w in clip.record.timed) else phase

    def compose(self, place: Place, position: int, rng: np.random.Generator) -> ChunkItem:
        """Build the item of a place."""
        clip, begin = place.clip, self.start(place)
        anchor_size, _, past_size = self._sizes
        stream = clip.audio(place.phase)
        at = self._audio_start(place.chunk) if place.latent is None else place.latent
        audio = stream[at:at + self._carried]
        wanted = 0 if place.first else self._recent_length(rng)
        past = past_of(clip, place.phase, at, wanted, self.partners, rng)
        words = [] if place.first and place.quiet else past.words  # a first chunk has none but the clip's own
        text, pointer = self._text(place, words, begin, begin if place.first else past.begin, rng)
        anchor = self.partners.anchor(clip, anchor_size, rng, (begin, begin + self.chunk_s))
        own_past = stream[at - past_size:at] if past_size and not place.first and at >= past_size else None
        item = ChunkItem(place, position, None, audio, None, None, None, own_past, anchor, past.audio, text, pointer,
                         words, self.store.set_of(clip) if self.weights else "")
        if self.rare is not None:
            origin = clip.facts(self.clock).origins[place.phase]
            rate = float(self.clock.audio_rate)
            item.emphasis = self.rare.over(clip.record.timed, origin + at / rate, rate, self._carried)
        if self.with_video and clip.has_video:
            self._add_video(item, rng)
        return item

    def _add_video(self, item: ChunkItem, rng: np.random.Generator) -> None:
        place = item.place
        video = place.clip.video(place.phase)
        item.video = video[place.chunk]
        item.ref = self.partners.reference(place.clip, rng)
        if not place.first and place.chunk:
            item.motion = video[place.chunk - 1, :, -self.window.motion_latents:]
            item.sink = self.partners.sink(place.clip, place.phase, self.window.sink_latents, rng)

    def _audio_start(self, chunk: int) -> int:
        """First audio latent of a chunk, from the clock's exact fractions, remembered."""
        found = self._audio_starts.get(chunk)
        if found is None:
            found = self._audio_starts[chunk] = self.clock.audio_start(chunk)
        return found

    def _recent_length(self, rng: np.random.Generator) -> int:
        most = self._sizes[1]
        return most if rng.random() < self.cfg.history_full_p else int(rng.integers(most + 1))

    def _transcript(self, place: Place, words: list[Word]) -> Transcript:
        """Of the words; that of a clip's own is made once."""
        facts = place.clip.facts(self.clock)
        if words is not facts.words[place.phase]:
            return Transcript([name for name, _, _ in words], self.units)
        found = facts.transcripts.get(place.phase)
        if found is None or found.units is not self.units:
            found = facts.transcripts[place.phase] = Transcript([name for name, _, _ in words], self.units)
        return found

    def _text(self, place: Place, words: list[Word], begin: float, window_begin: float,
              rng: np.random.Generator) -> tuple[SplitText, float]:
        """Split the words at the chunk's start (with jitter) and find the true end position within todo."""
        transcript = self._transcript(place, words)
        pointer = said = word_position_at(words, begin)
        if not place.first and said < len(words):  # text that has ended is known to have ended
            pointer = said + self.cfg.pointer_jitter * float(rng.standard_normal())
            pointer = min(max(pointer, 0.0), len(words) - 1e-3)
        end = begin + self.chunk_s
        if self.cfg.more_text_p and rng.random() < self.cfg.more_text_p and words and end <= words[-1].end:
            more = self.partners.other(place.clip, "speaker", rng)
            transcript = Transcript([w.text for w in (*words, *(more.record.timed if more else ()))], self.units)
        split = split_transcript(transcript, transcript.unit_position(word_position_at(words, window_begin)),
                                 transcript.unit_position(pointer), self.window.max_spoken, self.window.max_todo)
        said_at_end = transcript.unit_position(word_position_at(words, end, said))
        return split, min(max(said_at_end - split.base, 0.0), float(len(split.todo)))
