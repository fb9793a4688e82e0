"""What a training item costs by the length of its clip: why batches need no length buckets.

    python benchmarks/length_cost.py --folder SCRATCH          # a minute on one core

Latents of random values from clips of one length (2, 6 or 20 s) are composed to batches with the history of production
(3 s of voice, 12 s of the latest sound), and a teacher step (orchestrator and denoiser, forward and backward, pointer
too) is made with them. Floating-point operations are counted by torch; they, and the shapes, are exact and do not
depend on the machine. Times are processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader  # noqa: E402 - beside this file

from datamodules.collate import ChunkCollate  # noqa: E402
from datamodules.compose import ItemComposer  # noqa: E402
from datamodules.config import DataConfig  # noqa: E402
from datamodules.latent_shards import LatentStore  # noqa: E402
from datamodules.rollout_items import RolloutCollate, RolloutComposer  # noqa: E402
from streamchar.denoiser.config import DenoiserConfig  # noqa: E402
from streamchar.diffusion.config import DiffusionConfig  # noqa: E402
from streamchar.diffusion.noise import NoiseKey  # noqa: E402
from streamchar.hub.model_spec import ModelSpec  # noqa: E402
from streamchar.objectives.drops import DropConfig  # noqa: E402
from streamchar.objectives.joint import joint_losses  # noqa: E402
from streamchar.orchestrator.config import OrchestratorConfig  # noqa: E402
from streamchar.types import ChunkBatch, RolloutBatch, tensor_map  # noqa: E402

WINDOW = replace(loader.WINDOW, anchor_s=3.0, recent_s=12.0)
SPEC = ModelSpec(DenoiserConfig(8, 96, patch=3, width=64, layers=2, heads=2, ffn=128, audio_ffn=128),
                 OrchestratorConfig(width=64, layers=2, heads=2, kv_heads=2, ffn=128, pointer_dim=32), loader.CLOCK,
                 WINDOW, DiffusionConfig(), 192)
BATCH, BATCHES = 8, 40


def main() -> None:
    """Print the table; fails where two lengths give other shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch folder for the latents")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loader.SIZES["grid"] = ((8, 9, 12, 12), 96, 24)
    print("| clips of | bytes of a batch | GFLOP of a step | history filled | text filled | composed, ms per item |")
    print("|---|---|---|---|---|---|")
    shapes = {}
    for seconds in (2.0, 6.0, 20.0):
        loader.CLIP_S = seconds
        store = LatentStore(loader.made(options.folder / f"{seconds:g}s", "grid"), loader.CLOCK)
        items = ItemComposer(store, loader.CLOCK, WINDOW, SPEC.units(), DataConfig(), seed=1)
        collate = ChunkCollate(loader.CLOCK, WINDOW, 96, store.index.video, items.units.width)
        for clip in store.clips:  # the first look at every value is not what is compared
            store.usable(clip)
        begun = time.process_time()
        batches = [collate([items.item(p) for p in range(b * BATCH, (b + 1) * BATCH)]) for b in range(BATCHES)]
        spent = (time.process_time() - begun) / (BATCH * BATCHES) * 1e3
        streams = RolloutComposer(items)
        rollout = RolloutCollate(collate)([streams.item(p) for p in range(BATCH)])
        shapes[seconds] = [_shapes(rollout), *map(_shapes, batches)]
        filled = [(b.conditions.history_mask, torch.cat([b.conditions.spoken.mask, b.conditions.todo.mask], 1))
                  for b in batches]
        history, text = (torch.cat(masks).float().mean().item() for masks in zip(*filled, strict=True))
        size = sum(n for n, _ in _shapes(batches[0]))
        print(f"| {seconds:g} s | {size:,} | {_flops(batches[0]) / 1e9:.6f} | {history:.0%} | {text:.0%} | "
              f"{spent:.3f} |", flush=True)
    assert all(rows == shapes[2.0] and rows[1:] == [rows[1]] * BATCHES for rows in shapes.values())


def _shapes(batch: ChunkBatch | RolloutBatch) -> list[tuple[int, torch.Size]]:
    """Bytes and shape of each tensor."""
    found: list[tuple[int, torch.Size]] = []
    tensor_map(batch, lambda t: found.append((t.nbytes, t.shape)))
    return found


def _flops(batch: ChunkBatch) -> int:
    """Operations of a teacher step, forward and backward."""
    denoiser, orchestrator = SPEC.build_denoiser(), SPEC.build_orchestrator()
    with FlopCounterMode(display=False) as counted:
        losses = joint_losses(denoiser, orchestrator, batch, NoiseKey(0, tuple(range(BATCH)), "train", 0),
                              SPEC.diffusion, DropConfig())
        (losses.video + losses.audio + losses.head + losses.pointer).mean().backward()
    return counted.get_total_flops()


if __name__ == "__main__":
    main()
