"""A streaming session: chunks of latents in, frames and samples out to sinks, with a record of the time it took.

The chunk loop itself is ``streamchar.rollout.stream.stream_chunks``; this file only decodes what it yields. With
``overlap`` chunk k is decoded in a second thread (on CUDA: a second stream) and written in a third while chunk k + 1 is
generated, but the first one before the second is: what comes out is the same, bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.streaming.conductor import Conductor
from streamchar.streaming.decoding import ChunkDecoder, ChunkJob, DecodedChunk, finish
from streamchar.streaming.sinks import Sink
from streamchar.streaming.timing import ChunkTiming, TimingRecord
from streamchar.streaming.worker import Worker
from streamchar.types import Latents


class Chunk(Protocol):
    """What the session needs of a ``ChunkResult``: latents, how many audio latents it owns, pointers in words (B,)."""

    @property
    def latents(self) -> Latents: ...

    @property
    def audio_owned(self) -> int: ...

    @property
    def chunk(self) -> int: ...

    @property
    def pointer_before(self) -> Any: ...

    @property
    def pointer_after(self) -> Any: ...


class StreamSession:
    """Decodes chunks for B streams and hands them to B sinks.

    Args:
        clock, video_codec, audio_codec: of the character.
        sinks: one per stream; ``run`` closes them, whatever happens.
        transcript_words: words per stream; a stream's sink takes nothing more after its one quiet chunk past the end.
            None: sinks take everything, as live streams need, whose text may still grow.
        overlap: decode and write beside the generation of the next chunk.
        conductor: of a live stream: keeps its pace and hears when a chunk was delivered.

    Attributes:
        record: each chunk's times. pointers: per stream, the pointer in words after each of its chunks.
    """

    def __init__(self, clock: ChunkClock, video_codec: VideoCodec, audio_codec: AudioCodec, sinks: Sequence[Sink],
                 transcript_words: Sequence[int] | None = None, overlap: bool = False,
                 conductor: Conductor | None = None) -> None:
        self.clock, self.sinks, self.conductor = clock, list(sinks), conductor
        self.decoder = ChunkDecoder(video_codec, audio_codec, len(self.sinks), beside=overlap)
        self.words = list(transcript_words) if transcript_words is not None else None
        self.record = TimingRecord(float(clock.chunk_seconds), len(self.sinks), float(clock.seconds(0)))
        self.pointers: list[list[float]] = [[] for _ in sinks]
        self.done = [False] * len(self.sinks)
        self._closed = [False] * len(self.sinks)
        self._began = time.perf_counter()
        self.overlap = overlap
        self._decoding: Worker[ChunkJob] | None = None
        self._writing: Worker[DecodedChunk] | None = None

    def run(self, chunks: Iterable[Chunk]) -> TimingRecord:
        """Consume the stream to its end. Sinks are finished also when this is interrupted (Ctrl-C) or fails."""
        try:
            for _ in self.iterate(chunks):
                pass
        finally:
            self.finish()
        return self.record

    def iterate(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Generate, decode and write each chunk, then yield it (for progress bars and servers).

        With ``overlap`` a chunk is yielded when it has been generated, the first one when it is decoded too; errors of
        decoding and writing are raised with a later chunk, or by :meth:`finish`.
        """
        if self.overlap:
            self._writing = Worker("stream-writer", self._write)
            self._decoding = Worker("stream-decoder", self._decode)
        self._began = time.perf_counter()
        source, first = iter(chunks), True
        while True:
            if self.conductor is not None:
                self.conductor.keep_pace()
            start = time.perf_counter()
            with torch.inference_mode():
                chunk = next(source, None)
            if chunk is None:
                return
            finish(chunk.latents.video)
            self._deliver(self._job(chunk, time.perf_counter() - start))
            if first and self._decoding is not None:
                # a stream that has just begun plays nothing behind which decoding could hide: a device filled with the
                # next chunk would keep its first pictures and sounds waiting for all of it
                self._decoding.wait()
            first = False
            yield chunk

    def state_dict(self) -> dict[str, Any]:
        """With the memory's, all that the rest of the stream depends on; asked for between two chunks.

        Waits until all chunks so far are written.
        """
        for worker in (self._decoding, self._writing):
            if worker is not None:
                worker.wait()
        return {**self.decoder.state_dict(), "done": list(self.done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`: sound without a seam; sinks of streams that had ended are closed."""
        self.decoder.load_state_dict(state)
        self.done, self._closed = list(state["done"]), list(state["done"])
        for sink, done in zip(self.sinks, self.done, strict=True):
            if done:
                sink.close()

    def _job(self, chunk: Chunk, generate_s: float) -> ChunkJob:
        """What is to be done with a chunk; notes the pointers and which streams end with it."""
        open_, ends = [not done for done in self.done], [False] * len(self.sinks)
        for b, going in enumerate(open_):
            if going:
                self.pointers[b].append(float(chunk.pointer_after[b]))
                ends[b] = self.words is not None and float(chunk.pointer_before[b]) >= self.words[b]
                self.done[b] = ends[b]
        owned = [chunk.audio_owned] * len(self.sinks)
        return ChunkJob(chunk.chunk, chunk.latents, owned, open_, ends, generate_s)

    def _deliver(self, job: ChunkJob) -> None:
        if self._decoding is None:
            self._write(self.decoder.decode(job))
        else:
            self._decoding.put(job)

    def _decode(self, job: ChunkJob) -> None:
        assert self._writing is not None
        self._writing.put(self.decoder.decode(job))

    def _write(self, decoded: DecodedChunk) -> None:
        job, begun = decoded.job, time.perf_counter()
        for b, sink in enumerate(self.sinks):
            if job.open[b]:
                sink.write(decoded.pictures[b], decoded.sounds[b])
            if (tail := decoded.tails[b]) is not None:
                self._close(b, tail)
        if self.conductor is not None:
            self.conductor.delivered(job.chunk)
        self.record.add(ChunkTiming(job.generate_s, decoded.video_s, decoded.audio_s, time.perf_counter() - begun,
                                    begun - self._began, overlapped=self.overlap))

    def _close(self, b: int, tail: Any) -> None:
        """Write what the decoder held back and close the stream's sink."""
        self._closed[b] = True
        try:
            self.sinks[b].write(np.zeros((0, 2, 2, 3), np.uint8), tail)
        finally:
            self.sinks[b].close()

    def finish(self) -> None:
        """Wait for what is under way and end every open stream; raises what decoding or writing raised."""
        errors: list[BaseException] = []
        for end in (self._decoding, self._writing):
            if end is not None:
                _gather(end.join, errors)
        for b, closed in enumerate(self._closed):
            if not closed:
                _gather(partial(self._flush, b), errors)
        if errors:
            raise errors[0]

    def _flush(self, b: int) -> None:
        self._close(b, self.decoder.flush(b))


def _gather(act: Callable[[], None], errors: list[BaseException]) -> None:
    """Do ``act``; an error of one stream must not keep others from being finished."""
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - raised by the caller, after all streams were finished
        errors.append(error)
