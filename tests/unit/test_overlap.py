"""Decoding and writing beside generation: the same stream bit by bit, errors and interruptions come through."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamchar.errors import StreamCharError
from streamchar.streaming.muxer import ClipWriter
from streamchar.streaming.reading import read_clip
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import CountingSink, MemorySink
from streamchar.streaming.worker import Worker
from tests.unit.test_streaming import CLOCK, SAMPLES, BlockVideo, RawSound, chunks


def wave(count: int) -> torch.Tensor:
    return torch.rand((CLOCK.audio_start(count) + 1) * SAMPLES, generator=torch.Generator().manual_seed(0))


class Full(MemorySink):
    """A sink whose disk is full after ``room`` writes."""

    room = 2

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
        self.room -= 1
        if self.room < 0:
            raise StreamCharError("the disk is full")
        super().write(frames, samples)


class Broken(BlockVideo):
    """A codec that fails at its third chunk."""

    calls = 0

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise ValueError("cannot decode")
        return super().decode(latents)


def test_an_overlapped_stream_is_the_plain_one_bit_by_bit() -> None:
    pointers = [[0, 1, 2, 2, 2, 2, 2, 2], [0, 1, 2, 3, 4, 4, 4, 5]]
    found = []
    for overlap in (False, True):
        sinks = [MemorySink(24, 16000) for _ in pointers]
        session = StreamSession(CLOCK, BlockVideo(), RawSound(), sinks, [2, 4], overlap)
        record = session.run(chunks(wave(7), 7, pointers))
        assert len(record.chunks) == 7 and [len(s.frames) // 33 for s in sinks] == [3, 5]
        found.append((sinks, session.pointers))
    for plain, beside in zip(found[0][0], found[1][0], strict=True):
        assert np.array_equal(plain.frames, beside.frames) and np.array_equal(plain.sound, beside.sound)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("overlap", [False, True])
def test_a_session_saved_in_the_middle_goes_on_without_a_seam(overlap: bool) -> None:
    """One stream has ended when it is saved; the codec holds 100 samples back between chunks."""
    pointers, words = [[0, 1, 1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 4, 4, 5]], [1, 4]
    whole, cut = ([MemorySink(24, 16000) for _ in pointers] for _ in range(2))
    StreamSession(CLOCK, BlockVideo(), RawSound(), whole, words, overlap).run(chunks(wave(7), 7, pointers))
    made = list(chunks(wave(7), 7, pointers))
    first = StreamSession(CLOCK, BlockVideo(), RawSound(), cut, words, overlap)
    for _ in first.iterate(made[:3]):
        pass
    state = first.state_dict()
    assert state["done"] == [True, False] and [len(s["held"]) for s in state["sound"]] == [0, 100]
    first.sinks = [CountingSink() for _ in pointers]  # what is still written there is lost, as by a crash
    first.finish()
    second = StreamSession(CLOCK, BlockVideo(), RawSound(), cut, words, overlap)
    second.load_state_dict(state)
    second.run(made[3:])
    for a, b in zip(cut, whole, strict=True):
        assert np.array_equal(a.frames, b.frames) and np.array_equal(a.sound, b.sound)
    with pytest.raises(StreamCharError, match="of 2 streams, here are 1"):
        StreamSession(CLOCK, BlockVideo(), RawSound(), [CountingSink()]).load_state_dict(state)


@pytest.mark.parametrize("begin", [0, 5])
def test_the_first_chunk_is_decoded_before_the_second_is_generated_later_ones_beside(begin: int) -> None:
    """``begin``: a stream that was restored, too, has nothing to play yet."""
    events, decoded = [], 0
    entered, generated = threading.Event(), threading.Event()

    class Slow(BlockVideo):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            nonlocal decoded
            decoded += 1
            if decoded == 1:
                time.sleep(0.1)  # long enough for a generator that does not wait
            elif decoded == 2:
                entered.set()
                assert generated.wait(30), "decoding of the second chunk kept the generation of the third waiting"
            events.append(f"decoded {decoded}")
            return super().decode(latents)

    def source():
        for k, chunk in enumerate(chunks(wave(begin + 3), begin + 3)[begin:], start=1):
            if k == 3:
                assert entered.wait(30)  # the second chunk is being decoded now
            events.append(f"generated {k}")
            if k == 3:
                generated.set()
            yield chunk

    record = StreamSession(CLOCK, Slow(), RawSound(), [CountingSink()], overlap=True).run(source())
    assert events == ["generated 1", "decoded 1", "generated 2", "generated 3", "decoded 2", "decoded 3"]
    assert len(record.chunks) == 3 and all(c.overlapped for c in record.chunks)


def test_a_first_chunk_that_cannot_be_decoded_ends_the_session_before_a_second_one_is_generated() -> None:
    made, sink = [], CountingSink()

    class Never(BlockVideo):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            raise ValueError("cannot decode")

    def source():
        for chunk in chunks(wave(2), 2):
            made.append(chunk.chunk)
            yield chunk

    with pytest.raises(ValueError, match="cannot decode"):
        StreamSession(CLOCK, Never(), RawSound(), [sink], overlap=True).run(source())
    assert made == [0] and sink.closed
    assert not [t for t in threading.enumerate() if t.name.startswith("stream-")]


@pytest.mark.parametrize("overlap", [False, True])
def test_a_full_disk_ends_the_session_and_closes_the_other_sinks(overlap: bool) -> None:
    other = CountingSink()
    session = StreamSession(CLOCK, BlockVideo(), RawSound(), [Full(24, 16000), other], overlap=overlap)
    made = chunks(wave(9), 9, [[0.0] * 10, [0.0] * 10])
    with pytest.raises(StreamCharError, match="disk is full"):
        session.run(made)
    assert other.closed


@pytest.mark.parametrize("overlap", [False, True])
def test_a_codec_that_fails_ends_the_session_with_its_error_after_what_came_before(overlap: bool) -> None:
    sink = MemorySink(24, 16000)
    with pytest.raises(ValueError, match="cannot decode"):
        StreamSession(CLOCK, Broken(), RawSound(), [sink], overlap=overlap).run(chunks(wave(9), 9))
    assert len(sink.frames) == 66


def test_an_interrupted_overlapped_session_leaves_a_file_that_plays(tmp_path: Path) -> None:
    def interrupted():
        yield from chunks(wave(3) * 0.1, 3)
        raise KeyboardInterrupt

    out = tmp_path / "clip.mp4"
    session = StreamSession(CLOCK, BlockVideo(), RawSound(), [ClipWriter(out, (32, 32), 24, 16000)], overlap=True)
    with pytest.raises(KeyboardInterrupt):
        session.run(interrupted())
    frames, sound, _ = read_clip(out, 16000)
    assert len(frames) == 99 and len(sound) == 99 * 16000 // 24
    assert not [t for t in threading.enumerate() if t.name.startswith("stream-")]


def test_a_worker_keeps_order_bounds_what_waits_and_never_blocks_after_an_error() -> None:
    go, done = threading.Event(), []

    def work(job: int) -> None:
        assert go.wait(30)
        if job == 3:
            raise ValueError("job 3")
        done.append(job)

    worker = Worker("order", work, room=10)
    for job in range(8):
        worker.put(job)
    go.set()
    with pytest.raises(ValueError, match="job 3"):
        worker.wait()
    with pytest.raises(ValueError, match="job 3"):
        worker.join()
    assert done == [0, 1, 2]
    with pytest.raises(ValueError, match="job 3"):
        worker.put(9)
