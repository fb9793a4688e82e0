"""The joint audio-video DiT: one chunk of both modalities, given ref, sink, motion and past sound (design, section 4).

Shape suffixes: B batch, L tokens, D width. ``context`` tokens (clean, t = 0) attend only among themselves and are
computed once per chunk; ``noisy`` tokens attend to everything. Two attention calls, no mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from streamchar.clock import ChunkClock
from streamchar.denoiser.block import Block, CaptionProjection, KeyValue, Modulation, Rope, layer_norm
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.frame_condition import FrameCondition
from streamchar.denoiser.positions import TokenPositions
from streamchar.nn.embedding import TimeEmbedding
from streamchar.nn.rope import rope_angles
from streamchar.types import Conditions, Latents
from streamchar.window import WindowConfig

GROUPS = ("ref", "sink", "motion", "past_audio", "video", "audio")


@dataclass
class Context:
    """Keys and values of the context tokens, one pair per block; valid for one chunk and one role."""

    keys_values: list[KeyValue]
    caption: Tensor | None = None

    def detach(self) -> Context:
        return Context([(k.detach(), v.detach()) for k, v in self.keys_values], self.caption)


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, T, h, w) -> (B, T h/p w/p, C p p), channels outermost as in a flattened convolution kernel."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // patch, patch, w // patch, patch).permute(0, 2, 3, 5, 1, 4, 6)
    return x.reshape(b, t * (h // patch) * (w // patch), c * patch * patch)


def unpatchify(tokens: Tensor, like: Tensor, patch: int) -> Tensor:
    """Inverse of :func:`patchify`; ``like`` gives the shape (B, C, T, h, w)."""
    b, c, t, h, w = like.shape
    x = tokens.reshape(b, t, h // patch, w // patch, c, patch, patch).permute(0, 4, 1, 2, 5, 3, 6)
    return x.reshape(b, c, t, h, w)


class Denoiser(nn.Module):
    """Predicts the velocity ``eps - x`` of a chunk's video and audio latents."""

    def __init__(self, config: DenoiserConfig, clock: ChunkClock, window: WindowConfig) -> None:
        super().__init__()
        self.config, self.clock, self.window = config, clock, window
        width, pixels = config.width, config.video_channels * config.patch**2
        self.positions = TokenPositions(config, clock, window.motion_latents, window.sink_latents)
        self.video_in, self.audio_in = nn.Linear(pixels, width), nn.Linear(config.audio_channels, width)
        self.video_out, self.audio_out = nn.Linear(width, pixels), nn.Linear(width, config.audio_channels)
        self.time_embedding = TimeEmbedding(config.time_dim, width)
        self.time_projection = nn.Linear(width, 6 * width)
        self.group_embedding = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in GROUPS})
        self.null_latent = nn.ParameterDict({
            name: nn.Parameter(torch.zeros(config.audio_channels if name == "past_audio" else config.video_channels))
            for name in ("ref", "sink", "motion", "past_audio")})
        self.null_condition = nn.Parameter(torch.zeros(width))
        self.caption_in = CaptionProjection(config.caption_dim, width) if config.caption_dim else None
        self.frame_condition = FrameCondition(width, clock) if config.frame_condition else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        for linear in (self.video_out, self.audio_out):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def _residual(self, x: Tensor) -> Tensor:
        return x if self.config.residual_bf16 else x.float()

    def _time(self, t: Tensor) -> tuple[Tensor, Modulation]:
        embedded = self.time_embedding(t)
        return embedded, Modulation(self.time_projection(nn.functional.silu(embedded)).unflatten(-1, (6, -1)))

    def _group(self, x: Tensor, present: Tensor, name: str) -> Tensor:
        """A group's tokens, or its learned null latent where ``present`` (B,) is False."""
        null = self.null_latent[name]
        null = null if name == "past_audio" else null[:, None, None, None]
        x = torch.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, null.to(x.dtype))
        if name == "past_audio":
            return self.audio_in(x) + self.group_embedding[name]
        return self.video_in(patchify(x, self.config.patch)) + self.group_embedding[name]

    def _rope(self, positions: Tensor, device: torch.device) -> Rope:
        head = self.config.width // self.config.heads
        return rope_angles(positions.to(device), head, self.config.rope_theta)

    def encode_context(self, c: Conditions, caption: Tensor | None = None) -> Context:
        """Run the clean groups once; their keys and values serve all steps and both guidance branches.

        caption: see :meth:`encode_caption`.
        """
        grid = tuple(n // self.config.patch for n in c.ref.shape[-2:])
        groups = [self._group(c.ref, c.has_ref, "ref"), self._group(c.sink, c.has_sink, "sink"),
                  self._group(c.motion, c.has_motion, "motion")]
        video_tokens = sum(g.shape[1] for g in groups)
        places = self.positions.context_video(grid[0], grid[1], c.sink.shape[2], c.motion.shape[2], c.ref.device)
        places = places.expand(c.ref.shape[0], -1, -1)
        if c.past_audio.shape[1]:
            groups.append(self._group(c.past_audio, c.has_past, "past_audio"))
            places = torch.cat((places, self.positions.past_audio(c.past_audio.shape[1], c.audio_time)), dim=1)
        x = self._residual(torch.cat(groups, dim=1))
        rope = self._rope(places, x.device)
        _, modulation = self._time(torch.zeros(1, device=x.device))
        states = self.encode_caption(caption, x.shape[0])
        pairs = []
        for block in self.blocks:
            x, own = block(x, modulation, rope, video_tokens, None, states)
            pairs.append(own)
        return Context(pairs, states)

    def encode_caption(self, caption: Tensor | None, batch: int) -> Tensor | None:
        """(B, M, caption_dim) states at the model's width, (B, M, D); None where the model has no cross-attention.

        Without a caption the states are one zero vector: Wan fills captions up with zeros, unmasked, so this is to it
        what a caption without words is.
        """
        if self.caption_in is None:
            return None
        if caption is None:
            caption = torch.zeros(batch, 1, self.config.caption_dim, device=self.null_condition.device)
        return self.caption_in(caption)

    def forward(self, noisy: Latents, sigma: Tensor, c_a: Tensor, context: Context, audio_time: Tensor) -> Latents:
        """Velocity of both modalities.

        noisy: video (B, C, Tv, h, w), audio (B, Ta, Ca); sigma (B,); c_a (B, Ta, width), see :meth:`null_like`;
        audio_time (B, Ta) seconds of the audio latents relative to the chunk's start. Returns float32 latents.
        """
        video = self.video_in(patchify(noisy.video, self.config.patch)) + self.group_embedding["video"]
        audio = self.audio_in(noisy.audio) + self.group_embedding["audio"] + c_a
        grid = tuple(n // self.config.patch for n in noisy.video.shape[-2:])
        if self.frame_condition is not None:
            each = self.frame_condition(c_a, audio_time)[:, :noisy.video.shape[2]]
            video = video + each.repeat_interleave(grid[0] * grid[1], dim=1)
        pictures = self.positions.noisy_video(noisy.video.shape[2], grid[0], grid[1], audio.device)
        places = torch.cat((pictures.expand(audio.shape[0], -1, -1), self.positions.noisy_audio(audio_time)), dim=1)
        x = self._residual(torch.cat((video, audio.to(video.dtype)), dim=1))
        rope, count = self._rope(places, x.device), video.shape[1]
        embedded, modulation = self._time(sigma)
        for block, pair in zip(self.blocks, context.keys_values, strict=True):
            x, _ = block(x, modulation, rope, count, pair, context.caption)
        shift, scale = (self.scale_shift_table + embedded[:, None]).to(x.dtype).chunk(2, dim=1)
        x = layer_norm(x) * (1 + scale) + shift
        out_video = unpatchify(self.video_out(x[:, :count]), noisy.video, self.config.patch)
        return Latents(out_video.float(), self.audio_out(x[:, count:]).float())

    def null_like(self, c_a: Tensor, dropped: Tensor | None = None) -> Tensor:
        """``c_a`` with the learned null vector in the samples where ``dropped`` (B,) is True (all, if None)."""
        null = self.null_condition.to(c_a.dtype).expand_as(c_a)
        return null if dropped is None else torch.where(dropped[:, None, None], null, c_a)
