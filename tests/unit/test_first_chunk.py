"""A first chunk that is shorter: heard sooner, on the same clock, and the rest of the stream as long as ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.rollout.joined import JoinedMemory
from streamchar.rollout.plan import student_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.engine import accelerate, warm_up
from streamchar.streaming.inference_plan import InferencePlan
from streamchar.streaming.playback import PlaybackClock
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import MemorySink
from streamchar.streaming.timing import ChunkTiming, TimingRecord
from tests import tiny_models as tiny
from tests.integration.test_stream_stage import PlainSound, PlainVideo

WHOLE = ChunkClock(24.0, 33, 25.0, 16000)
CLOCK = replace(WHOLE, first_frames=17)
WORDS = [["red", "at", "c", "nine", "again", "now"]]


def test_the_clock_counts_the_first_chunk_as_long_as_it_is() -> None:
    assert [float(CLOCK.chunk_start(k)) for k in range(3)] == pytest.approx([0, 17 / 24, 50 / 24])
    assert [CLOCK.frames(0), CLOCK.frames(1), CLOCK.latents(0), CLOCK.latents(1)] == [17, 33, 5, 9]
    assert [CLOCK.carried(0), CLOCK.carried(1)] == [18, 35]
    for k in range(200):
        assert CLOCK.audio_start(k + 1) - CLOCK.audio_start(k) == CLOCK.audio_owned(k) <= CLOCK.carried(k)
        assert 0 <= CLOCK.audio_offset(k) < 1 / 25
    assert [WHOLE.audio_start(k) for k in (0, 1, 8)] == [0, 35, 275]
    for wrong, words in ((16, "not 1 \\+ 4 n"), (37, "only be shorter")):
        with pytest.raises(InputError, match=words):
            replace(WHOLE, first_frames=wrong)


def test_a_stream_begins_with_a_short_chunk_and_stays_in_sync() -> None:
    character = replace(tiny.character(WHOLE), clock=CLOCK, video_codec=PlainVideo(), audio_codec=PlainSound())
    memory, sink = character.start(tiny.streams(WORDS, WHOLE)), MemorySink(24, 16000)
    seen = []

    def watched():
        for chunk in stream_chunks(character, memory, student_plan(character.diffusion), 4, exactly=True):
            seen.append((chunk, memory.has_sink.item(), memory.motion.clone()))
            yield chunk

    record = StreamSession(CLOCK, *character.codecs(), [sink]).run(watched())
    assert [c.latents.video.shape[2] for c, _, _ in seen] == [5, 9, 9, 9]
    assert [c.latents.audio.shape[1] for c, _, _ in seen] == [18, 35, 35, 35]
    assert len(sink.frames) == 17 + 3 * 33 and len(sink.sound) == int(len(sink.frames) * 16000 / 24)
    assert [has for _, has, _ in seen] == [False, True, True, True]  # the first whole chunk is the sink
    assert torch.equal(memory.sink, seen[1][0].latents.video[:, :, :tiny.WINDOW.sink_latents])
    assert record.summary()["playback_s"] == pytest.approx(116 / 24)


def test_motion_before_a_short_chunk_stood_still() -> None:
    memory = replace(tiny.character(), clock=replace(tiny.CLOCK, first_frames=5)).start(tiny.streams([["a"]]))
    video = tiny.latents(1).video[:, :, :2]
    memory.advance(replace(tiny.latents(1), video=video), torch.tensor([0.0]), 100.0)
    assert torch.equal(memory.motion, torch.cat((video[:, :, :1], video), dim=2))
    assert not memory.has_sink.any() and memory.trace[0, 0, 0].item() == pytest.approx(-0.2)


def test_static_buffers_follow_and_joined_streams_refuse() -> None:
    who = replace(tiny.character(WHOLE), clock=CLOCK)
    plan, batch = student_plan(who.diffusion), tiny.streams(WORDS, WHOLE)
    plain = [c.latents.video for c in stream_chunks(who, batch, plan, 3, exactly=True)]
    fast = accelerate(who, InferencePlan(graphs=True))
    memory = fast.start(batch)
    warm_up(fast, memory, [plan])
    recorded = fast.denoiser._step.recorded  # type: ignore[attr-defined]
    ours = [c.latents.video for c in stream_chunks(fast, memory, plan, 3, exactly=True)]
    assert recorded == 2 == fast.denoiser._step.recorded  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    with pytest.raises(ValueError, match="without first_frames"):
        JoinedMemory([memory, who.start(batch)]).conditions()


def test_deadlines_count_from_the_short_chunk() -> None:
    at = [10.0]
    playback = PlaybackClock(CLOCK, lambda: at[0])
    playback.delivered(0)
    at[0] += 17 / 24
    assert playback.delivered(1) == pytest.approx(0)
    at[0] += 34 / 24
    assert playback.delivered(2) == pytest.approx(-1 / 24) and playback.missed == 1
    record = TimingRecord(33 / 24, first_s=17 / 24)
    for ready in (1.0, 1.0 + 17 / 24, 1.0 + 51 / 24):
        record.add(ChunkTiming(0.5, 0, 0, 0, ready))
    s = record.summary()
    assert s["deadline_misses"] == 1 and s["worst_late_s"] == pytest.approx(1 / 24)
    assert np.isclose(s["real_time_factor"], 1.5 / (83 / 24))
