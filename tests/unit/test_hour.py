"""An hour of stream, 2,600 chunks: memory and work per chunk stay what they were, sound and picture stay together."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from streamchar.clock import ChunkClock
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import CountingSink
from tests import tiny_models as tiny
from tests.integration.test_stream_stage import PlainSound, PlainVideo

CLOCK = ChunkClock(24.0, 33, 25.0, 16000)  # 34.375 audio latents per chunk
CHUNKS = 2600


class Work(TorchDispatchMode):
    """Counts operations and the elements that they give."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        self.elements += out.numel() if isinstance(out, torch.Tensor) else 0
        return out


def tensor_bytes(memory: StreamMemory) -> int:
    return sum(v.numel() * v.element_size() for v in memory.state_dict().values() if isinstance(v, torch.Tensor))


def run(chunks: int, look_at: tuple[int, ...], overlap: bool) -> tuple[dict[int, tuple[int, ...]], CountingSink, int]:
    """Of chunks ``look_at``: bytes of the memory's tensors, operations and elements of the next chunk; bytes that
    Python holds more at the end than at the first look."""
    character = replace(tiny.character(CLOCK), video_codec=PlainVideo(), audio_codec=PlainSound())
    memory = character.start(tiny.streams([["red", "at", "c", "nine"]], CLOCK))
    sink, found, held = CountingSink(), {}, []
    session = StreamSession(CLOCK, *character.codecs(), [sink], overlap=overlap)
    made = stream_chunks(character, memory, SamplePlan((1.0,), True), chunks, exactly=True)

    def watched():  # type: ignore[no-untyped-def]
        for k in range(chunks):
            memory.append_text(0, ["word"] * max(20 + int(memory.pointer[0]) - len(memory.transcripts[0]), 0))
            if k not in look_at:
                yield next(made)
                continue
            work = Work()
            with work:
                chunk = next(made)
            found[k] = (tensor_bytes(memory), work.operations, work.elements)
            held.append(tracemalloc.get_traced_memory()[0])
            yield chunk

    tracemalloc.start()
    try:
        session.run(watched())
    finally:
        tracemalloc.stop()
    assert memory.chunk == chunks
    return found, sink, held[-1] - held[0]


def check(chunks: int, look_at: tuple[int, ...], overlap: bool) -> int:
    found, sink, grown = run(chunks, look_at, overlap)
    first = found[look_at[0]]
    for later in found.values():
        assert later[0] == first[0] and later[1:] == pytest.approx(first[1:], rel=0.01), found
    assert sink.closed and sink.frames == 33 * chunks
    owned = CLOCK.audio_start(chunks) * 640  # samples of all latents that belong to these chunks
    assert sink.samples == owned and 0 <= owned - sink.frames * 16000 / 24 < 640  # less than one latent ahead
    return grown


def test_some_chunks_cost_the_same_and_stay_in_sync() -> None:
    check(24, (8, 16, 23), overlap=True)


@pytest.mark.slow
def test_an_hour_costs_the_same_at_its_end_as_at_its_beginning() -> None:
    grown = check(CHUNKS, (100, 1300, 2599), overlap=False)
    assert grown < 12_000_000  # text that was said and a record of times, no latents and no pictures
