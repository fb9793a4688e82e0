"""Several streams in one batch: each is the stream it would be alone; those that would be too many are refused."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamchar.clock import ChunkClock
from streamchar.errors import AdmissionError, StreamCharError
from streamchar.rollout.character import Character
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.joined import JoinedMemory
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import student_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.admission import Admission
from streamchar.streaming.live import LiveText
from streamchar.streaming.pool import StreamPool
from streamchar.streaming.sinks import CountingSink, MemorySink
from tests import tiny_models as tiny
from tests.integration.test_stream_stage import PlainSound, PlainVideo

TEXTS = [["red", "at", "c"], ["nine", "again", "now", "please"]]


@pytest.fixture(scope="module")
def character() -> Character:
    return replace(tiny.character(), video_codec=PlainVideo(), audio_codec=PlainSound())


def begin(character: Character, words: list[str], seed: int) -> StreamMemory:
    return character.start(tiny.streams([words]), seed)


def pool_of(character: Character, overlap: bool = False) -> StreamPool:
    admission = Admission(1e9)
    admission.measured(1, 1.0)
    return StreamPool(character, student_plan(character.diffusion), admission, overlap=overlap)


def alone(character: Character, words: list[str], seed: int, chunks: int) -> MemorySink:
    pool, sink = pool_of(character), MemorySink(25, 16000)
    pool.join("alone", begin(character, words, seed), sink)
    for _ in range(chunks):
        pool.step()
    pool.close()
    return sink


@pytest.mark.parametrize("overlap", [False, True])
def test_a_stream_that_joins_late_is_the_stream_it_would_be_alone(character: Character, overlap: bool) -> None:
    pool, sinks = pool_of(character, overlap), [MemorySink(25, 16000) for _ in TEXTS]
    first = pool.join("first", begin(character, TEXTS[0], 3), sinks[0])
    assert pool.step() == 1
    pool.join("second", begin(character, TEXTS[1], 5), sinks[1])
    assert pool.step() == 2 and pool.step() == 2
    pool.leave(first)
    assert pool.step() == 1 and first.ended.is_set() and first.error is None
    pool.close()
    for sink, words, seed in zip(sinks, TEXTS, (3, 5), strict=True):
        expected = alone(character, words, seed, 3)
        assert len(sink.frames) == 3 * 17
        assert np.abs(sink.frames.astype(int) - expected.frames.astype(int)).max() <= 1
        np.testing.assert_allclose(sink.sound, expected.sound, atol=1e-5)


def test_joined_memories_advance_as_each_would_alone_also_at_a_fractional_rate() -> None:
    clock = ChunkClock(24.0, 33, 25.0, 16000)
    character = tiny.character(clock)
    members = [character.start(tiny.streams([w], clock), seed) for seed, w in enumerate(TEXTS)]
    twins = [character.start(tiny.streams([w], clock), seed) for seed, w in enumerate(TEXTS)]
    plan = student_plan(character.diffusion)
    with torch.no_grad():
        generate_chunk(character, members[0], plan)
        for _ in range(2):
            result = generate_chunk(character, JoinedMemory(members), plan)
    assert result.chunks == [2, 1] and result.owned == [clock.audio_owned(2), clock.audio_owned(1)] == [35, 34]
    with pytest.raises(ValueError, match="no common chunk number"):
        _ = result.chunk
    for b, (twin, member) in enumerate(zip(twins, members, strict=True)):
        chunks = list(stream_chunks(character, twin, plan, 3 - b, exactly=True))
        torch.testing.assert_close(result.latents.video[b], chunks[-1].latents.video[0])
        for name, value in twin.state_dict().items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(member.state_dict()[name], value)
            else:
                assert member.state_dict()[name] == value


@pytest.mark.parametrize("overlap", [False, True])
def test_a_sink_that_fails_ends_its_own_stream_alone(character: Character, overlap: bool) -> None:
    class Full(CountingSink):
        def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
            raise StreamCharError("the disk is full")

    pool, good, bad = pool_of(character, overlap), CountingSink(), Full()
    one = pool.join("one", begin(character, TEXTS[0], 0), bad)
    pool.join("two", begin(character, TEXTS[1], 0), good)
    assert pool.step() == 2 and pool.step() == 1
    pool.close()
    assert "disk is full" in str(one.error) and bad.closed and good.closed and good.frames == 34


def test_a_pool_writes_a_first_chunk_at_once_and_later_ones_beside_the_next(character: Character) -> None:
    """The sink takes its second chunk only once the third has been generated."""
    generated = threading.Event()

    class Waits(CountingSink):
        def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
            assert self.frames != 17 or not len(frames) or generated.wait(30), "nothing is generated beside"
            super().write(frames, samples)

    pool, sink = pool_of(character, overlap=True), Waits()
    stream = pool.join("one", begin(character, TEXTS[1], 0), sink)
    pool.step()
    assert sink.frames == 17 and stream.playback.started
    pool.step()
    pool.step()
    assert sink.frames == 17
    generated.set()
    pool.close()
    assert stream.error is None and sink.closed and sink.frames == 3 * 17
    assert not [t for t in threading.enumerate() if t.name == "pool-delivery"]


def test_streams_end_by_themselves_and_texts_stay_apart(character: Character) -> None:
    pool, texts, sinks = pool_of(character), [LiveText(tiny.UNITS) for _ in TEXTS], [CountingSink() for _ in TEXTS]
    members = [pool.join(f"s{i}", begin(character, [], i), s, t)
               for i, (s, t) in enumerate(zip(sinks, texts, strict=True))]
    texts[0].append("bin blue")
    texts[1].close()
    runner = threading.Thread(target=pool.run)
    assert pool.step() == 2
    assert members[0].memory.transcripts[0].words == ["bin", "blue"] and not members[1].memory.transcripts[0].words
    assert pool.step() == 1 and members[1].ended.is_set() and sinks[1].closed and sinks[1].frames == 17
    texts[0].interrupt()
    texts[0].close()
    runner.start()
    runner.join(60)
    assert members[0].ended.is_set() and sinks[0].closed and sinks[0].frames == 3 * 17


def test_admission_refuses_what_would_break_the_deadlines_of_others(character: Character) -> None:
    admission = Admission(1.0, margin=0.1)
    admission.check(1)
    with pytest.raises(AdmissionError, match="no chunk time has been measured"):
        admission.check(2)
    admission.measured(1, 0.4)
    admission.check(2)  # .8 s, if nothing is shared
    with pytest.raises(AdmissionError, match="3 streams would take 1.20 s a chunk, 0.90 s are allowed"):
        admission.check(3)
    admission.measured(2, 0.55)
    assert admission.expected_s(4) == pytest.approx(0.85)
    admission.check(4)
    with pytest.raises(AdmissionError):
        admission.check(5)
    admission.measured(8, 2.0)
    assert admission.expected_s(5) == pytest.approx(0.55 + 3 * 1.45 / 6)
    pool = StreamPool(character, student_plan(character.diffusion), Admission(1.0))
    pool.join("one", begin(character, TEXTS[0], 0), CountingSink())
    with pytest.raises(AdmissionError):
        pool.join("two", begin(character, TEXTS[0], 0), CountingSink())
    pool.close()


def test_calibration_finds_how_many_fit(character: Character) -> None:
    at = [0.0]

    def now() -> float:
        return at[0]

    pool = StreamPool(character, student_plan(character.diffusion), Admission(1.0), now)
    memory = begin(character, TEXTS[0], 0)
    whole = type(character.denoiser).forward

    def forward(self, noisy, *rest):
        at[0] += 0.06 * (1 + len(noisy.audio))  # four steps: .48 s for one stream, .24 s for each more
        return whole(self, noisy, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(character.denoiser), "forward", forward)
        assert pool.calibrate(memory, most=5, chunks=1) == 2
    assert memory.chunk == 0 and pool.admission.expected_s(3) == pytest.approx(0.96)
