"""The orchestrator: a causal LM that turns transcript and history into frame-aligned audio conditions (design, 5).

Packed sequence: ``[spoken | pointer mark | still to say | history audio | condition block]``; causal over the prefix,
bidirectional inside the block. The prefix's keys and values are computed once per chunk; the block, which holds the
current noisy audio latents and t, is rerun at every denoising step.

Shape suffixes: B batch, P prefix tokens, T audio latents of the chunk, D width of the LM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from streamchar.clock import ChunkClock
from streamchar.nn.embedding import SpelledEmbedding, TimeEmbedding
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.orchestrator.fast_llm import FastLlm
from streamchar.orchestrator.learning_llm import LearningLlm
from streamchar.orchestrator.masked_attention import NAME as ATTENTION
from streamchar.orchestrator.pointer import Pointer, PointerReading
from streamchar.types import Conditions, Text

KINDS = ("spoken", "mark", "todo", "history", "block")


@dataclass
class Prefix:
    """What one chunk's prefix leaves for its blocks: keys and values per layer, who may be seen, transcript states."""

    keys_values: list[tuple[Tensor, Tensor]]
    seen: Tensor
    todo_states: Tensor
    todo_mask: Tensor
    cursor: Tensor
    position: Tensor

    def repeat(self, times: int) -> Prefix:
        """The whole batch ``times`` over."""
        if times == 1:
            return self

        def again(x: Tensor) -> Tensor:
            return x.repeat(times, *[1] * (x.ndim - 1))

        pairs = [(again(k), again(v)) for k, v in self.keys_values]
        return Prefix(pairs, *map(again, (self.seen, self.todo_states, self.todo_mask, self.cursor, self.position)))

    def select(self, rows: Tensor) -> Prefix:
        """That of some of the batch's samples: ``rows`` (P,) int64."""
        pairs = [(k[rows], v[rows]) for k, v in self.keys_values]
        return Prefix(pairs, self.seen[rows], self.todo_states[rows], self.todo_mask[rows], self.cursor[rows],
                      self.position[rows])


def small_llm(config: OrchestratorConfig) -> Qwen2Model:
    """A Qwen2 model with random weights; the token table shrinks to one row where words are spelled."""
    spelled = config.tokenizer == "spelled"
    return Qwen2Model(Qwen2Config(
        vocab_size=1 if spelled else config.vocabulary, hidden_size=config.width, intermediate_size=config.ffn,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, attention_dropout=0.0))


class Orchestrator(nn.Module):
    """Text and history to ``c_a`` (B, T, condition_width), one vector per audio latent, and the pointer.

    Args:
        config: size and text units.
        clock: for real-time positions.
        audio_channels: channels of an audio latent.
        condition_width: the denoiser's width.
        llm: a loaded Qwen2-family model; None builds one from ``config``.
    """

    def __init__(self, config: OrchestratorConfig, clock: ChunkClock, audio_channels: int, condition_width: int,
                 llm: Qwen2Model | None = None, vocabulary: int | None = None) -> None:
        super().__init__()
        self.config, self.clock = config, clock
        self.llm = llm if llm is not None else small_llm(config)
        self.llm.set_attn_implementation(ATTENTION)
        width = int(self.llm.config.hidden_size)
        self.speller = (SpelledEmbedding(vocabulary or 39, config.word_width, width)
                        if config.tokenizer == "spelled" else None)
        if self.speller is not None:
            self.llm.embed_tokens.requires_grad_(False)  # its one row is never looked up
        self.history_in, self.block_in = nn.Linear(audio_channels, width), nn.Linear(audio_channels, width)
        self.time_embedding = TimeEmbedding(256, width)
        self.mark = nn.Parameter(torch.zeros(width))
        self.null_text = nn.Parameter(torch.zeros(width))
        self.kind = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(width)) for name in KINDS})
        self.condition_out = nn.Linear(width, condition_width)
        self.head_norm = nn.LayerNorm(condition_width)
        self.head = nn.Linear(condition_width, audio_channels)
        self.head_skip = nn.Linear(audio_channels, audio_channels)
        self.pointer = Pointer(width, condition_width, config.pointer_dim)
        self._fast: FastLlm | None = None
        self._learning: LearningLlm | None = None
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head_skip.weight)

    def use_fast_llm(self, compiled: bool = True) -> bool:
        """From now on run the LM's layers through :class:`FastLlm`, without gradients; False where they do not fit."""
        if FastLlm.fits(self.llm):
            self._fast = FastLlm(self.llm, compiled)
        return self._fast is not None

    def compile_llm(self, **options: Any) -> bool:
        """From now on run the LM's layers compiled whole while it learns (:class:`LearningLlm`); False where they do
        not fit. ``options`` of :func:`torch.compile`."""
        if FastLlm.fits(self.llm):
            self._learning = LearningLlm(self.llm, **options)
        return self._learning is not None

    def _embed(self, text: Text) -> Tensor:
        if self.speller is not None:
            return self.speller(text.ids)
        return self.llm.embed_tokens((text.ids.squeeze(-1) - 1).clamp_min(0))

    def _prefix_positions(self, c: Conditions) -> Tensor:
        """(B, P) position of every prefix token, in audio latents (``time``) or counted over real ones (``index``)."""
        spoken, todo = c.spoken.mask.shape[1], c.todo.mask.shape[1]
        batch = c.cursor.shape[0]
        if self.config.positions == "index":
            seen = self._seen(c)
            return (seen.cumsum(dim=1) - 1).clamp_min(0).float()
        device = c.cursor.device  # made there: copies from the host would make it wait
        units = torch.cat((torch.arange(-spoken, 0, device=device), torch.full((1,), -0.5, device=device),
                           torch.arange(0, todo, device=device)))
        seconds = (units[None] + 0.5 - c.cursor[:, None]) * self.config.unit_seconds
        seconds = torch.cat((seconds, c.history_time.expand(batch, -1)), dim=1)
        return seconds * self.clock.audio_rate

    def _seen(self, c: Conditions) -> Tensor:
        mark, told = torch.ones_like(c.todo.mask[:, :1]), c.has_text[:, None]
        return torch.cat((c.spoken.mask & told, mark, c.todo.mask & told, c.history_mask), dim=1)

    def prefix(self, c: Conditions) -> Prefix:
        """Run text and history once per chunk. Untold text is hidden, and the mark says so [ours]."""
        mark = torch.where(c.has_text[:, None], self.mark, self.null_text)[:, None] + self.kind["mark"]
        x = torch.cat((self._embed(c.spoken) + self.kind["spoken"], mark, self._embed(c.todo) + self.kind["todo"],
                       self.history_in(c.history) + self.kind["history"]), dim=1)
        seen, positions = self._seen(c), self._prefix_positions(c)
        length = x.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        # Padding may see itself, so that no softmax row is empty.
        allowed = (causal & seen[:, None, :]) | torch.eye(length, dtype=torch.bool, device=x.device)
        states, pairs = self._states(x, allowed, positions)
        first = c.spoken.mask.shape[1] + 1
        todo_states = states[:, first:first + c.todo.mask.shape[1]]
        start = (c.audio_time * self.clock.audio_rate if self.config.positions == "time"
                 else seen.sum(dim=1, keepdim=True) + torch.arange(c.audio_time.shape[1], device=x.device))
        return Prefix(pairs, seen, todo_states, c.todo.mask & c.has_text[:, None], c.cursor, start.float())

    def untold_prefix(self, c: Conditions) -> Prefix:
        """That of a character that was told nothing, which guidance leads away from."""
        return self.prefix(c.without_text())

    def block(self, prefix: Prefix, audio: Tensor, sigma: Tensor) -> Tensor:
        """``c_a`` (B, T, condition_width) for noisy audio latents (B, T, C) at noise levels sigma (B,).

        The stored prefix is never changed, so blocks can be run in any number and order.
        """
        x = self.block_in(audio) + self.time_embedding(sigma)[:, None] + self.kind["block"]
        batch, length = x.shape[:2]
        allowed = torch.cat((prefix.seen, torch.ones(batch, length, dtype=torch.bool, device=x.device)), dim=1)
        states, _ = self._states(x, allowed[:, None].expand(-1, length, -1), prefix.position, prefix.keys_values)
        return self.condition_out(states)

    def _states(self, x: Tensor, allowed: Tensor, positions: Tensor,
                past: list[tuple[Tensor, Tensor]] | None = None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The LM over embeddings after ``past`` keys and values: final states, and keys and values per layer."""
        mask = _additive(allowed, x.dtype)
        if self._fast is not None:
            return self._fast(x, mask, positions, past)
        if self._learning is not None and self.training:
            return self._learning(x, mask, positions, past)
        cache = DynamicCache(ddp_cache_data=past) if past is not None else DynamicCache()
        states = self.llm(inputs_embeds=x, attention_mask=mask, position_ids=positions, past_key_values=cache,
                          use_cache=True).last_hidden_state
        return states, [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore

    def velocity(self, c_a: Tensor, audio: Tensor) -> Tensor:
        """The light flow-matching head on ``c_a`` itself: velocity (B, T, C) of pretraining on speech alone."""
        return (self.head(self.head_norm(c_a)) + self.head_skip(audio)).float()

    def point(self, prefix: Prefix, audio: Tensor) -> Tensor:
        """(B,) predicted end position for the chunk's final audio."""
        return self.reading(prefix, audio).end

    def reading(self, prefix: Prefix, audio: Tensor) -> PointerReading:
        """What the pointer makes of the chunk's final audio: one more block at t = 0, then the pointer."""
        c_a = self.block(prefix, audio, torch.zeros(audio.shape[0], device=audio.device))
        return self.pointer(prefix.todo_states, prefix.todo_mask, c_a, prefix.cursor)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, Q, K) bool -> (B, 1, Q, K) additive mask, of autocast's type where that is on."""
    if torch.is_autocast_enabled(allowed.device.type):
        dtype = torch.get_autocast_dtype(allowed.device.type)
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
        ~allowed, torch.finfo(dtype).min)[:, None]
