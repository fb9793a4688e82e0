"""Several characters on one device: streams that come and go between chunks and are generated as one batch.

Every stream has its own memory, text, sink, deadlines and noise: alone or among others it is the same stream, to
rounding. One whose sink fails leaves; the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from streamchar.errors import StreamCharError
from streamchar.rollout.character import Character
from streamchar.rollout.chunk_loop import ChunkResult, generate_chunk
from streamchar.rollout.joined import JoinedMemory
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.streaming.admission import Admission
from streamchar.streaming.decoding import ChunkDecoder, ChunkJob, finish
from streamchar.streaming.degradation import Degradation, Level
from streamchar.streaming.live import LiveText
from streamchar.streaming.playback import PlaybackClock
from streamchar.streaming.sinks import Sink
from streamchar.streaming.worker import Worker
from streamchar.types import Latents

log = logging.getLogger(__name__)


@dataclass
class PooledStream:
    """One stream of a pool. ``error``: why it left, if it did not end by itself."""

    name: str
    memory: StreamMemory
    sink: Sink
    decoder: ChunkDecoder
    playback: PlaybackClock
    text: LiveText | None = None
    leaving: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class StreamPool:
    """Streams that share one character's models.

    :meth:`join` and :meth:`leave` may be called from any thread and take effect at the next chunk.

    Args:
        character: models and codecs.
        plan: of every chunk, or a :class:`Degradation` that chooses it.
        admission: refuses streams that would break the deadlines of others; None: a fresh one of the chunk's length.
        now: a clock in seconds.
        overlap: decode and write the chunks beside the generating of the next ones; what comes out is the same.
    """

    def __init__(self, character: Character, plan: SamplePlan | Degradation, admission: Admission | None = None,
                 now: Callable[[], float] = time.perf_counter, overlap: bool = False) -> None:
        self.character, self.now = character, now
        self.quality = Degradation([Level(plan, "all steps", 1.0)]) if isinstance(plan, SamplePlan) else plan
        self.admission = admission or Admission(float(character.clock.chunk_seconds))
        self.streams: list[PooledStream] = []
        self._coming: list[PooledStream] = []
        self._lock = threading.Lock()
        self._took: tuple[float, int, int] | None = None  # seconds of the latest chunk, its level and streams
        self.overlap = overlap
        self._delivering: Worker[tuple[list[PooledStream], ChunkResult]] | None = None

    def join(self, name: str, memory: StreamMemory, sink: Sink, text: LiveText | None = None) -> PooledStream:
        """A stream that is generated from the next chunk on; ``memory`` holds one stream, fresh or restored.

        Raises:
            AdmissionError: where it would break the deadlines of the others.
            ValueError: for a memory of several streams.
        """
        if len(memory.transcripts) != 1:
            raise ValueError(f"a pooled stream has a memory of its own, this one holds {len(memory.transcripts)}")
        with self._lock:
            self.admission.check(len(self.streams) + len(self._coming) + 1)
            decoder = ChunkDecoder(*self.character.codecs(), streams=1, beside=self.overlap)
            stream = PooledStream(name, memory, sink, decoder,
                                  PlaybackClock(self.character.clock, self.now, memory.chunk), text)
            self._coming.append(stream)
        return stream

    def leave(self, stream: PooledStream) -> None:
        """End ``stream`` before its next chunk."""
        stream.leaving = True

    @torch.no_grad()
    def step(self) -> int:
        """Generate one chunk of every stream and deliver it (with ``overlap``: hand it over to be delivered); returns
        their number, 0 where there is none."""
        self._change()
        if not self.streams:
            return 0
        begun = self.now()
        result = generate_chunk(self.character, JoinedMemory([s.memory for s in self.streams]), self._plan(begun))
        count = len(self.streams)
        self._hand_over(result)
        took = self.now() - begun
        self.admission.measured(count, took)
        self._took = (took, self.quality.level, count)
        return count

    def run(self) -> None:
        """Until no stream is left; all are ended also when this is interrupted."""
        try:
            while self.step():
                pass
        finally:
            self.close()

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            self.streams, self._coming = [*self.streams, *self._coming], []
        for stream in self.streams:
            stream.leaving = True
        self._change()
        if self._delivering is not None:
            self._delivering.join()
            self._delivering = None

    @torch.no_grad()
    def calibrate(self, memory: StreamMemory, most: int, chunks: int = 3) -> int:
        """Measure chunks of 1, 2, ... ``most`` copies of a stream, up to the first number that is refused.

        memory: of a stream to copy, left as it is. Nothing is written. The first chunk of every size warms up and does
        not count; decoding counts as if it were never beside. Returns how many streams fit.
        """
        self._settle()
        fits = 1
        for count in range(1, most + 1):
            joined = JoinedMemory([memory.copy() for _ in range(count)])
            decoder = ChunkDecoder(*self.character.codecs(), streams=count)
            for k in range(chunks + 1):
                begun = self.now()
                result = generate_chunk(self.character, joined, self.quality.levels[0].plan)
                decoder.decode(ChunkJob(0, result.latents, result.owned, [True] * count, [False] * count, 0.0))
                if k:
                    self.admission.measured(count, self.now() - begun)
            try:
                self.admission.check(count)
            except StreamCharError as refusal:
                log.info("%s", refusal)
                return fits
            fits = count
        return fits

    def _plan(self, now: float) -> SamplePlan:
        """The plan that the stream with the nearest deadline needs."""
        due = [d for s in self.streams if (d := s.playback.due(s.memory.chunk)) is not None]
        known = self._took is not None and self._took[1:] == (self.quality.level, len(self.streams))
        took = self._took[0] if self._took and known else None
        return self.quality.choose(max(s.memory.chunk for s in self.streams), min(due) - now if due else None, took)

    def _change(self) -> None:
        """Between two chunks: streams come and go, and orders are obeyed."""
        with self._lock:
            self.streams, self._coming = [*self.streams, *self._coming], []
        for stream in self.streams:
            going_on = stream.text is not None and stream.text.open
            if stream.text is not None:
                stream.text.obey(stream.memory)
            if stream.leaving or (not going_on and bool(stream.memory.finished.all())):
                self._settle()  # its last chunks come before its end
                self._guard(stream, self._end)
        self.streams = [s for s in self.streams if not s.ended.is_set()]

    def _hand_over(self, result: ChunkResult) -> None:
        if not self.overlap:
            self._deliver_all((self.streams, result))
            return
        finish(result.latents.video)
        if self._delivering is None:
            self._delivering = Worker("pool-delivery", self._deliver_all, room=1)
        self._delivering.put((list(self.streams), result))
        if not all(s.playback.started for s in self.streams):
            self._settle()  # as in a session: a stream that has just begun has nothing behind which this could hide

    def _settle(self) -> None:
        """Wait until all that was handed over is delivered."""
        if self._delivering is not None:
            self._delivering.wait()

    def _deliver_all(self, job: tuple[list[PooledStream], ChunkResult]) -> None:
        streams, result = job
        for b, stream in enumerate(streams):
            if stream.error is None:
                self._guard(stream, self._deliver, result, b)

    def _deliver(self, stream: PooledStream, result: ChunkResult, b: int) -> None:
        part = Latents(result.latents.video[b:b + 1], result.latents.audio[b:b + 1])
        decoded = stream.decoder.decode(ChunkJob(result.chunks[b], part, [result.owned[b]], [True], [False], 0.0))
        stream.sink.write(decoded.pictures[0], decoded.sounds[0])
        stream.playback.delivered(result.chunks[b])

    def _end(self, stream: PooledStream) -> None:
        """Write what is held back and close; the stream has ended then, whatever happens."""
        stream.ended.set()
        try:
            tail = stream.decoder.flush(0)
            if stream.error is None:
                stream.sink.write(np.zeros((0, 2, 2, 3), np.uint8), tail)
        finally:
            stream.sink.close()

    def _guard(self, stream: PooledStream, act: Callable[..., None], *arguments: object) -> None:
        """Do something for one stream; what it raises ends this stream alone."""
        try:
            act(stream, *arguments)
        except Exception as error:
            stream.error = stream.error or error
            stream.leaving = True
            log.error("stream %s ends: %s", stream.name, error)
