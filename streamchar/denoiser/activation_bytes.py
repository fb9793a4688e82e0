"""Bytes that the denoiser keeps for its backward pass, counted beside the architecture, per sample.

``wide``: what stays float32 under autocast (the residual stream and norms); ``narrow``: bytes of what matrix products
take. A linear layer whose input autocast has to halve keeps a copy of its own. Attention is a fused kernel, which keeps
queries, keys, values and its output, and no scores. Cross-attention to captions is not counted.

Shape suffixes: N tokens of a pass, K keys it attends to, D width, F hidden width of an expert.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamchar.clock import ChunkClock
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.flops import chunk_tokens
from streamchar.window import WindowConfig

WIDE = 4


@dataclass(frozen=True)
class Kept:
    """What a pass with gradient over context and one step keeps.

    whole: at the beginning of the backward pass, with what its first block needs in between. late: when the step's
    blocks are done, so that their gradients of weights are there, but the context's blocks are still to come.
    """

    whole: int
    late: int


def kept_bytes(config: DenoiserConfig, clock: ChunkClock, window: WindowConfig, grid: int, narrow: int, mode: str,
               rank: int = 0) -> Kept:
    """Of one sample.

    Args:
        narrow: 2 or 4.
        mode: ``keep``, ``selective`` or ``recompute`` (``streamchar/distributed/activations.py``).
        rank: of adapters on a frozen base, where roles are that.
    """
    t = chunk_tokens(config, clock, window, grid)
    clean = t["ref"] + t["sink"] + t["motion"], t["past_audio"]
    noisy, d, layers = (t["video"], t["audio"]), config.width, config.layers
    before, now = sum(clean), sum(noisy)
    at_once = [block_bytes(config, *tokens, keys, narrow, rank)
               for tokens, keys in ((clean, before), (noisy, before + now))]
    ends = WIDE * 4 * d * now  # into the first block, and from the last one to the latents
    pairs = narrow * 2 * layers * d * before  # the context's keys and values
    late = narrow * 2 * layers * d * (before + now)  # their gradients, which lie in those of all keys of the step
    if mode == "keep":
        wide = 2 if rank else 4
        last = (WIDE * wide + narrow * (3 if narrow == WIDE else 4)) * d * before  # only keys and values are used
        context = (layers - 1) * at_once[0] + last
        return Kept(context + layers * at_once[1] + ends + _gradients(config, *noisy, narrow),
                    context + late + _gradients(config, *clean, narrow))
    context, step = (layers * _block_kept(config, *tokens, narrow, mode, rank) for tokens in (clean, noisy))
    if mode == "selective" and not rank:
        pairs //= 2  # the values are a product that is kept already
    return Kept(context + pairs + step + at_once[1] + ends + _gradients(config, *noisy, narrow),
                context + late + at_once[0] + _gradients(config, *clean, narrow))


def block_bytes(config: DenoiserConfig, video: int, audio: int, keys: int, narrow: int, rank: int = 0) -> int:
    """Of one block in which nothing is recomputed."""
    d, n = config.width, video + audio
    halved = 1 if narrow == WIDE else 3  # copies of the modulated input: one, or one for each of q, k, v
    hidden = config.ffn * video + config.audio_ffn * audio
    # wide: x, q and k before their norms, x again; narrow: the modulated input, q rotated, attention's output, the
    # experts' input. Weights of norms and modulation that learn need more: four norms' results; what is gated, twice.
    fused = WIDE * (4 if rank else 8) * d * n + narrow * (halved + (3 if rank else 5)) * d * n
    return fused + narrow * (2 * keys * d + 2 * hidden + 6 * rank * n)


def _gradients(config: DenoiserConfig, video: int, audio: int, narrow: int) -> int:
    """Gradients of activations that a block's backward pass holds at once, in its experts."""
    return narrow * 2 * (config.ffn * video + config.audio_ffn * audio) + WIDE * 2 * config.width * (video + audio)


def cache_bytes(config: DenoiserConfig, clock: ChunkClock, window: WindowConfig, grid: int, narrow: int) -> int:
    """Keys and values of a context that was run without gradient."""
    t = chunk_tokens(config, clock, window, grid)
    return config.layers * 2 * narrow * config.width * (t["ref"] + t["sink"] + t["motion"] + t["past_audio"])


def _block_kept(config: DenoiserConfig, video: int, audio: int, narrow: int, mode: str, rank: int) -> int:
    """Of a block that is computed again: its input, and for ``selective`` attention's output and every second product
    (queries, values, the experts' first; with adapters both those of the base and of the adapters' second matrices)."""
    d, n = config.width, video + audio
    kept = WIDE * d * n
    if mode == "selective":
        products = 2 * d * n + config.ffn * video + config.audio_ffn * audio
        kept += narrow * (d * n + (2 * products + 4 * rank * n if rank else products))
    return kept
