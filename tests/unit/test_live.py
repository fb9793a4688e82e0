"""Text that arrives while a character speaks, and streams that keep time with a listener."""

from __future__ import annotations

import threading

import pytest
import torch

from pipelines.live_lines import follow_lines
from streamchar.errors import InputError
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan, student_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.conductor import Conductor
from streamchar.streaming.degradation import PATIENCE, Degradation, Level, levels_of
from streamchar.streaming.live import LiveText
from streamchar.streaming.playback import PlaybackClock
from tests import tiny_models as tiny

CHUNK_S = float(tiny.CLOCK.chunk_seconds)
WORDS = ["red", "at", "c", "nine", "again"]


class Time:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def memory_at(position: float, words: list[str] = WORDS) -> StreamMemory:
    memory = tiny.character().start(tiny.streams([words]))
    memory.advance(tiny.latents(1), torch.tensor([position]), rate=100.0)
    return memory


def todo(memory: StreamMemory) -> int:
    return int(memory.conditions()[0].todo.mask.sum())


def conductor(text: LiveText | None, time: Time, lead_s: float | None = None) -> Conductor:
    plan = student_plan(tiny.character().diffusion)
    return Conductor(Degradation([Level(plan, "all", 1.0)]), PlaybackClock(tiny.CLOCK, time), text, lead_s)


def test_replaced_text_finishes_the_word_that_is_being_said() -> None:
    memory = memory_at(1.4)
    memory.replace_text(0, ["blue", "now"])
    assert memory.transcripts[0].words == ["red", "at", "blue", "now"] and memory.pointer.item() == pytest.approx(1.4)
    whole = memory_at(2.0)
    whole.replace_text(0, ["blue"])
    assert whole.transcripts[0].words == ["red", "at", "blue"]


def test_an_interruption_cuts_the_word_and_the_next_chunk_knows_of_nothing_to_say() -> None:
    memory = memory_at(1.4)
    memory.replace_text(0, [], cut=True)
    assert memory.transcripts[0].words == ["red", "at"] and bool(memory.text_done.all()) and todo(memory) == 0
    memory.advance(tiny.latents(1), torch.tensor([0.0]), rate=100.0)
    assert bool(memory.finished.all())
    memory.replace_text(0, ["so"], cut=True)
    assert not bool(memory.finished.any()) and todo(memory) == 1


def test_text_may_change_outside_of_inference_mode() -> None:
    character = tiny.character()
    with torch.inference_mode():
        memory = character.start(tiny.streams([WORDS, WORDS]))
        memory.advance(tiny.latents(2), torch.tensor([1.5, 5.0]), rate=100.0)
    memory.append_text(1, ["on"])
    memory.replace_text(0, ["off"], cut=True)
    assert memory.pointer.tolist() == [2.0, 5.0] and memory.quiet.tolist() == [0, 0]


def test_a_stream_that_was_interrupted_continues_identically_when_restored() -> None:
    character = tiny.character()
    text, time = LiveText(tiny.UNITS), Time()
    memory = character.start(tiny.streams([WORDS]))
    lead = conductor(text, time)
    chunks = stream_chunks(character, memory, lead)
    next(chunks)
    text.interrupt("blue now")
    next(chunks)
    saved = memory.state_dict()
    text.append("please")
    rest = [next(chunks) for _ in range(2)]
    other = character.start(tiny.streams([["nothing"]]))
    other.load_state_dict(saved)
    again = LiveText(tiny.UNITS)
    again.append("please")
    same = stream_chunks(character, other, conductor(again, time))
    for chunk in rest:
        assert torch.equal(chunk.latents.video, (twin := next(same)).latents.video)
        assert torch.equal(chunk.latents.audio, twin.latents.audio)


def test_orders_of_many_threads_all_arrive_in_each_threads_order() -> None:
    text, memory = LiveText(tiny.UNITS), memory_at(0.0, [])
    threads = [threading.Thread(target=lambda n=n: [text.append(f"w{n} {i}") for i in range(20)]) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        text.obey(memory)
    text.obey(memory)
    words = memory.transcripts[0].words
    assert len(words) == 160
    for n in range(4):
        assert [int(words[i + 1]) for i, w in enumerate(words) if w == f"w{n}"] == list(range(20))


def test_an_open_stream_goes_on_quiet_and_speaks_again_and_ends_when_closed() -> None:
    character, text, time = tiny.character(), LiveText(tiny.UNITS), Time()
    memory = character.start(tiny.streams([[]]))
    chunks = stream_chunks(character, memory, conductor(text, time))
    for _ in range(3):
        next(chunks)
    assert bool(memory.finished.all())
    text.append("hello")
    assert int(next(chunks).conditions.todo.mask.sum()) == 1
    text.interrupt()
    text.close()
    assert int(next(chunks).conditions.todo.mask.sum()) == 0
    assert list(chunks) == []  # one quiet chunk after the interruption, then the end
    with pytest.raises(InputError, match="was closed"):
        text.append("more")
    with pytest.raises(InputError, match="there are 1"):
        LiveText().append("more", stream=1)


def test_lines_append_replace_interrupt_and_their_end_closes(caplog: pytest.LogCaptureFixture) -> None:
    text, memory = LiveText(tiny.UNITS), memory_at(1.4)
    follow_lines(text, ["over there\n", "\n", "=blue\n", "now\n"]).join()
    assert not text.open and len(text.obey(memory)) == 3
    assert memory.transcripts[0].words == ["red", "at", "blue", "now"]
    cut = LiveText(tiny.UNITS)
    follow_lines(cut, ["!stop\n", "\u2603\n"]).join()
    cut.obey(memory)
    assert memory.transcripts[0].words == ["red", "at", "stop"] and "\u2603" in caplog.text

    def broken():
        yield "one"
        raise OSError("the pipe broke")

    failed = LiveText(tiny.UNITS)
    follow_lines(failed, broken()).join()
    assert not failed.open and len(failed.obey(memory)) == 1 and "the pipe broke" in caplog.text


def test_deadlines_run_from_the_first_chunk_and_never_pause() -> None:
    time = Time()
    playback = PlaybackClock(tiny.CLOCK, time)
    assert playback.lead(1) == 0.0 and playback.due(0) is None
    assert playback.delivered(0) == 0.0
    for k, late in ((1, -0.1), (2, 0.25), (3, -0.2)):
        time.at = 100.0 + k * CHUNK_S + late
        assert playback.delivered(k) == pytest.approx(-late)
    assert playback.missed == 1 and playback.worst_late_s == pytest.approx(0.25)
    assert playback.lead(5) == pytest.approx(2 * CHUNK_S + 0.2)


def test_a_live_stream_waits_for_its_listener_and_no_longer_once_it_is_closed() -> None:
    text, time = LiveText(tiny.UNITS), Time()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        time.at += seconds
        if len(waits) == 3:
            text.close()

    text.wait = wait  # type: ignore[method-assign]
    lead = conductor(text, time, lead_s=0.5 * CHUNK_S)
    memory = tiny.character().start(tiny.streams([WORDS]))
    for k in range(6):
        lead.keep_pace()
        lead.next_plan(memory)
        lead.delivered(k)
        memory.chunk += 1
    assert waits == pytest.approx([0.5 * CHUNK_S, CHUNK_S, CHUNK_S])
    assert lead.playback.missed == 0


def work(plan: SamplePlan) -> float:
    """Seconds of a chunk on a machine for which four steps are too slow; a narrow context spares half."""
    return CHUNK_S * (0.2 + 0.3 * plan.steps) * (0.5 if plan.sink_latents else 1.0)


def test_a_stream_that_falls_behind_gives_up_steps_then_context_and_takes_them_back(
        caplog: pytest.LogCaptureFixture) -> None:
    time, quality = Time(), Degradation(levels_of(student_plan(tiny.character().diffusion), tiny.WINDOW))
    assert [(v.plan.steps, v.plan.sink_latents) for v in quality.levels] == [(4, None), (3, None), (2, None), (2, 1)]
    lead = Conductor(quality, PlaybackClock(tiny.CLOCK, time))
    memory = tiny.character().start(tiny.streams([["a"] * 900]))
    slow, taken = 1.0, []
    for k in range(60):
        slow = 2.2 if 20 <= k < 30 else 0.5 if k >= 30 else 1.0
        plan = lead.next_plan(memory)
        assert plan is not None
        taken.append((plan.steps, plan.sink_latents))
        time.at += slow * work(plan)
        lead.delivered(k)
        memory.chunk += 1
    assert taken[:2] == [(4, None), (4, None)] and taken[2] == (3, None)  # 1.4 chunk lengths, then 1.1, then .8
    assert taken[3] == (2, None) and taken[4] == (2, 1)  # still late from before
    assert (2, 1) not in taken[8:20] and (2, 1) in taken[20:30]
    assert taken[-1] == (4, None) and quality.changes >= 6
    assert sum("expected" in r.message for r in caplog.records) >= 3
    assert PATIENCE > 1 and lead.playback.missed < 20


def test_fewer_steps_keep_the_first_level_and_an_euler_path_its_end() -> None:
    renoise = SamplePlan((1.0, 0.9, 0.8, 0.6), renoise=True)
    assert [renoise.with_steps(n).sigmas for n in (5, 3, 2, 1)] == [
        (1.0, 0.9, 0.8, 0.6), (1.0, 0.8, 0.6), (1.0, 0.6), (1.0,)]
    euler = SamplePlan((1.0, 0.9, 0.8, 0.6, 0.0), renoise=False)
    assert [euler.with_steps(n).sigmas for n in (2, 1)] == [(1.0, 0.8, 0.0), (1.0, 0.0)]


def test_a_narrow_context_holds_the_sinks_first_and_the_motions_last_latents_at_their_places() -> None:
    character, c = tiny.character(), tiny.conditions()
    plan = SamplePlan((1.0,), True, sink_latents=1, motion_latents=2)
    narrow = plan.limited(c)
    assert torch.equal(narrow.sink, c.sink[:, :, :1]) and torch.equal(narrow.motion, c.motion[:, :, -2:])
    places = character.denoiser.positions
    whole, part = (places.context_video(1, 1, s, m, torch.device("cpu"))[0, :, 0] for s, m in ((2, 3), (1, 2)))
    assert part.tolist() == [whole[0], whole[1], *whole[-2:]]
    tokens = character.denoiser.encode_context(narrow).keys_values[0][0].shape[1]
    assert character.denoiser.encode_context(c).keys_values[0][0].shape[1] - tokens == 2 * 2 * 2
