"""Which attention kernel a stream uses: on CUDA the fastest at the stream's own sizes, measured once."""

from __future__ import annotations

import logging

import torch

from streamchar.denoiser.flops import chunk_tokens
from streamchar.nn import attention
from streamchar.rollout.character import Character

log = logging.getLogger(__name__)

REPEATS = 10


def choose_attention(name: str, character: Character, device: torch.device) -> str:
    """Use kernel ``name``, or with ``auto`` the best one; returns it and says so in one line.

    Raises:
        InputError: where there is no such kernel.
    """
    if name == "auto" and device.type == "cuda":
        seconds = _measure(character, device)
        name = min(seconds, key=seconds.__getitem__)
        log.info("attention kernels, ms a step and layer: %s",
                 ", ".join(f"{attention.NAMES[k]} {1e3 * s:.3f}" for k, s in seconds.items()))
    attention.use(device.type, None if name == "auto" else name)
    return attention.backend(device.type, True)


def _measure(character: Character, device: torch.device) -> dict[str, float]:
    """Seconds of one layer's attention in a denoising step, for each kernel that runs at these sizes."""
    config = character.denoiser.config
    codec = character.video_codec
    grid = character.size // codec.spatial_stride if codec is not None else 16 * config.patch
    tokens = chunk_tokens(config, character.clock, character.window, grid)
    shape = (config.heads, config.width // config.heads)
    q, k, v = (torch.randn(1, n, *shape, device=device, dtype=torch.bfloat16)
               for n in (tokens["video"] + tokens["audio"], sum(tokens.values()), sum(tokens.values())))
    found = {}
    for name in attention.kernels(device.type):
        attention.use(device.type, name)
        try:
            found[name] = _seconds(q, k, v)
        except RuntimeError as error:
            log.info("attention kernel %s does not run here: %s", attention.NAMES[name], str(error).splitlines()[0])
    return found


def _seconds(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        attention.attend(q, k, v)
    begin.record()
    for _ in range(REPEATS):
        attention.attend(q, k, v)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / REPEATS
