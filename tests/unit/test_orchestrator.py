"""The orchestrator's caches and the pointer's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamchar.orchestrator.masked_attention import masked_attention
from streamchar.orchestrator.model import _additive
from streamchar.orchestrator.pointer import Pointer, advance
from streamchar.orchestrator.text import SpelledWords
from tests import tiny_models as tiny


@pytest.fixture(params=["time", "index"])
def model(request):
    return tiny.orchestrator(positions=request.param).eval()


def _audio(seed=5):
    return torch.randn(2, tiny.CLOCK.audio_latents, tiny.AUDIO, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_running_the_block_twice_gives_equal_conditions(model):
    prefix, sigma = model.prefix(tiny.conditions()), torch.tensor([0.2, 0.9])
    first = model.block(prefix, _audio(), sigma)
    model.block(prefix, _audio(6), sigma)
    torch.testing.assert_close(model.block(prefix, _audio(), sigma), first, rtol=0, atol=0)


@torch.no_grad()
def test_block_is_bidirectional(model):
    prefix, sigma, audio = model.prefix(tiny.conditions()), torch.tensor([0.2, 0.9]), _audio()
    changed = audio.clone()
    changed[:, -1] += 1
    first = model.block(prefix, audio, sigma)[:, 0]
    assert (model.block(prefix, changed, sigma)[:, 0] - first).abs().max() > 1e-6


@torch.no_grad()
def test_prefix_is_causal_and_text_does_not_see_the_history(model):
    c = tiny.conditions()
    states = model.prefix(c).todo_states
    torch.testing.assert_close(model.prefix(replace(c, history=c.history + 1)).todo_states, states)


@torch.no_grad()
def test_one_pass_over_the_whole_equals_prefix_plus_block(model):
    c, audio, sigma = tiny.conditions(), _audio(), torch.tensor([0.3, 0.7])
    prefix = model.prefix(c)
    pieces = model.block(prefix, audio, sigma)
    mark = (model.mark + model.kind["mark"]).expand(2, 1, -1)
    x = torch.cat((model._embed(c.spoken) + model.kind["spoken"], mark, model._embed(c.todo) + model.kind["todo"],
                   model.history_in(c.history) + model.kind["history"],
                   model.block_in(audio) + model.time_embedding(sigma)[:, None] + model.kind["block"]), dim=1)
    p, n = prefix.seen.shape[1], x.shape[1]
    seen = torch.cat((prefix.seen, torch.ones(2, n - p, dtype=torch.bool)), dim=1)
    allowed = torch.ones(n, n, dtype=torch.bool).tril()
    allowed[p:, p:] = True
    allowed = (allowed & seen[:, None]) | torch.eye(n, dtype=torch.bool)
    positions = torch.cat((model._prefix_positions(c), prefix.position.expand(2, -1)), dim=1)
    whole = model.llm(inputs_embeds=x, attention_mask=_additive(allowed, x.dtype), position_ids=positions,
                      use_cache=False).last_hidden_state
    torch.testing.assert_close(model.condition_out(whole[:, p:]), pieces, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_some_samples_point_as_they_do_in_the_whole_batch(model):
    prefix, audio = model.prefix(tiny.conditions(3)), torch.cat((_audio(), _audio(6)[:1]))
    rows = torch.tensor([0, 2])
    assert torch.allclose(model.point(prefix.select(rows), audio[rows]), model.point(prefix, audio)[rows], atol=1e-5)


def test_short_sequences_in_half_precision_attend_as_sdpa_does():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    mask = _additive(torch.rand(2, 5, 7) > 0.3, torch.float32)
    wanted, _ = masked_attention(torch.nn.Identity(), q, k, v, mask)
    with torch.autocast("cpu", torch.bfloat16):
        plain, _ = masked_attention(torch.nn.Identity(), q, k, v, mask)
    assert plain.shape == (2, 5, 4, 8) and torch.allclose(plain.float(), wanted, atol=0.03)


@torch.no_grad()
def test_padding_is_not_seen(model):
    c, sigma = tiny.conditions(), torch.tensor([0.3, 0.7])
    text = replace(c.todo, ids=torch.where(c.todo.mask[..., None], c.todo.ids, 7))
    a = model.block(model.prefix(c), _audio(), sigma)
    b = model.block(model.prefix(replace(c, todo=text)), _audio(), sigma)
    torch.testing.assert_close(a, b)


@torch.no_grad()
def test_untold_text_is_not_seen_and_is_not_an_empty_transcript(model):
    c, sigma = tiny.conditions(), torch.tensor([0.3, 0.7])
    untold = c.without_text()
    a = model.prefix(untold)
    c_a = model.block(a, _audio(), sigma)
    other = replace(untold, todo=replace(c.todo, ids=c.todo.ids.flip(0)),
                    spoken=replace(c.spoken, ids=c.spoken.ids * 0))
    torch.testing.assert_close(model.block(model.prefix(other), _audio(), sigma), c_a)
    empty = replace(c, todo=replace(c.todo, mask=torch.zeros_like(c.todo.mask)),
                    spoken=replace(c.spoken, mask=torch.zeros_like(c.spoken.mask)))
    assert (model.block(model.prefix(empty), _audio(), sigma) - c_a).abs().max() > 1e-4
    assert not model.point(a, _audio()).any() and model.point(model.prefix(c), _audio()).any()
    one = replace(c, has_text=torch.tensor([True, False]))  # each sample for itself
    mixed = model.block(model.prefix(one), _audio(), sigma)
    torch.testing.assert_close(mixed[1], c_a[1])
    torch.testing.assert_close(mixed[0], model.block(model.prefix(c), _audio(), sigma)[0])


def test_pointer_stays_inside_the_text_and_is_zero_without_text():
    torch.manual_seed(0)
    pointer = Pointer(8, 8, 4)
    for p in pointer.parameters():
        torch.nn.init.normal_(p, std=3.0)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])
    out = pointer(torch.randn(3, 5, 8), mask, torch.randn(3, 7, 8), torch.tensor([0.0, 0.5, 0.0])).end
    assert (out >= 0).all() and out[1] <= 2 and out[2] == 0


def test_pointer_advance_is_monotone_and_bounded():
    before, length = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([10.0, 10.0, 2.5])
    after = advance(before, torch.tensor([1.0, 9.0, 9.0]), rate=2.0, seconds=1.5, length=length)
    assert after.tolist() == [2.0, 5.0, 2.5]


def test_any_word_can_be_spelled():
    units = SpelledWords(6)
    assert units.encode("naïve")[0] != units.encode("naive")[0]
    assert len(units.encode("supercalifragilistic")[0]) == 6
    assert any(units.encode("漢")[0])
