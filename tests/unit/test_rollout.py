"""The chunk loop and its memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from streamchar.clock import ChunkClock
from streamchar.diffusion.noise import NoiseKey
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.denoise import denoise_chunk
from streamchar.rollout.plan import student_plan, teacher_plan
from streamchar.rollout.stream import stream_chunks
from tests import tiny_models as tiny

WORDS = [["bin", "red", "at", "c", "nine", "now"] * 3, ["set", "blue"]]


def _run(character, memory, count, plan=None):
    plan = plan or student_plan(character.diffusion)
    with torch.no_grad():
        return [generate_chunk(character, memory, plan) for _ in range(count)]


def test_a_stream_saved_in_the_middle_and_restored_goes_on_bit_identically():
    character = tiny.character()
    whole = character.start(tiny.streams(WORDS), seed=4)
    expected = _run(character, whole, 6)[3:]
    first = character.start(tiny.streams(WORDS), seed=4)
    _run(character, first, 3)
    state = first.state_dict()
    second = character.start(tiny.streams([["x"], ["y"]]), seed=0)
    second.load_state_dict(state)
    assert bool(second.has_sink.all()) and second.chunk == 3
    for a, b in zip(_run(character, second, 3), expected, strict=True):
        assert torch.equal(a.latents.video, b.latents.video) and torch.equal(a.latents.audio, b.latents.audio)
        assert torch.equal(a.pointer_after, b.pointer_after)


def test_the_first_chunk_stays_the_sink_and_motion_is_the_last_chunk():
    character = tiny.character()
    memory = character.start(tiny.streams(WORDS))
    results = _run(character, memory, 4)
    torch.testing.assert_close(memory.sink, results[0].latents.video[:, :, :tiny.WINDOW.sink_latents])
    torch.testing.assert_close(memory.motion, results[-1].latents.video[:, :, -tiny.WINDOW.motion_latents:])


def test_a_rollout_from_real_motion_keeps_its_real_sink():
    character, batch = tiny.character(), tiny.streams(WORDS, real_start=True)
    memory = character.start(batch)
    _run(character, memory, 2)
    assert torch.equal(memory.sink, batch.start_sink)


def test_without_sink_it_never_fills():
    character = tiny.character()
    memory = character.start(tiny.streams(WORDS), use_sink=False)
    _run(character, memory, 2)
    assert not bool(memory.has_sink.any())


def test_no_gradient_crosses_chunks():
    character = tiny.character()
    memory = character.start(tiny.streams(WORDS))
    plan = student_plan(character.diffusion)
    first = generate_chunk(character, memory, plan, exit_step=3)
    assert first.exit.video.requires_grad
    for name in ("sink", "motion", "recent", "pointer"):
        assert not getattr(memory, name).requires_grad, name
    second = generate_chunk(character, memory, plan, exit_step=1)
    loss = second.exit.video.square().mean()
    parameters = list(character.denoiser.parameters())
    torch.autograd.grad(first.exit.video.square().mean(), parameters, allow_unused=True)  # frees the first graph
    loss.backward()  # would fail if the second graph reached into the first


def test_on_an_euler_path_the_exit_is_the_final_sample_and_moves_as_its_step_does():
    character = tiny.character()
    plan = student_plan(replace(character.diffusion, few_step_sampler="euler"))
    c = tiny.conditions()
    prefix, key = character.orchestrator.prefix(c), NoiseKey.of(0, [0, 1])
    run = partial(denoise_chunk, character.denoiser, character.orchestrator, c, prefix, plan, key)
    plain = run().final
    out = run(exit_step=1, stop_at_exit=True)
    torch.testing.assert_close(out.exit.audio, plain.audio)
    assert torch.equal(out.final.audio, plain.audio)
    bias = character.denoiser.audio_out.bias
    grad, = torch.autograd.grad(out.exit.audio.sum(), bias)
    stretch = plan.sigmas[2] - plan.sigmas[1]
    torch.testing.assert_close(grad, torch.full_like(bias, stretch * plain.audio[..., 0].numel()))


def test_history_text_and_pointer_move_together():
    character = tiny.character()
    memory = character.start(tiny.streams([["a", "b", "c", "d"]]))
    latents = tiny.latents(1)
    for position in (1.5, 2.0, 3.5):
        memory.advance(latents, torch.tensor([position]), rate=100.0)
    c, base = memory.conditions()
    assert base.item() == 3 and abs(c.cursor.item() - 0.5) < 1e-6
    assert c.todo.mask.sum() == 1
    # recent sound covers .8 s = the last chunk (.68 s) and a bit of the one before: words from 1.91 on
    assert c.spoken.mask.sum() == 2


def test_pointer_is_monotone_and_a_stall_is_counted():
    character = tiny.character()
    memory = character.start(tiny.streams([["a", "b", "c", "d"]]))
    for predicted in (2.0, 1.0, 2.0, 2.0):
        memory.advance(tiny.latents(1), torch.tensor([predicted]), rate=100.0)
    assert memory.pointer.item() == 2.0 and memory.stalled.item() == 3


def test_a_stream_ends_after_one_quiet_chunk_and_text_can_be_appended():
    character = tiny.character()
    memory = character.start(tiny.streams([["a"]]))
    memory.advance(tiny.latents(1), torch.tensor([0.95]), rate=100.0)
    assert bool(memory.text_done.all()) and not bool(memory.finished.all())
    memory.advance(tiny.latents(1), torch.tensor([0.0]), rate=100.0)
    assert bool(memory.finished.all())
    memory.append_text(0, ["b"])
    assert not bool(memory.finished.any()) and not bool(memory.text_done.any())


def test_an_empty_transcript_is_one_quiet_chunk_then_the_end():
    character = tiny.character()
    results = list(stream_chunks(character, tiny.streams([[]]), max_chunks=5))
    assert len(results) == 1 and results[0].pointer_after.item() == 0


def test_euler_and_few_step_use_the_number_of_steps_they_say(monkeypatch):
    character = tiny.character()
    calls = []
    original = type(character.denoiser).forward
    monkeypatch.setattr(type(character.denoiser), "forward", lambda self, *a: calls.append(1) or original(self, *a))
    memory = character.start(tiny.streams(WORDS))
    _run(character, memory, 1)
    assert len(calls) == 4
    calls.clear()
    _run(character, memory, 1, teacher_plan(character.diffusion, 3))
    assert len(calls) == 6  # two guidance branches


def test_streams_at_a_fractional_rate_own_every_latent_once():
    clock = ChunkClock(24.0, 33, 25.0, 16000)
    character = tiny.character(clock)
    memory = character.start(tiny.streams([["a"] * 40], clock))
    owned = [r.audio_owned for r in _run(character, memory, 8)]
    assert sum(owned) == clock.audio_start(8) == 275 and set(owned) == {34, 35}
