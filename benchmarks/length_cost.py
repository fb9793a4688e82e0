"""What training costs by the length of its clips, in all four stages: why batches need no length buckets.

    python benchmarks/length_cost.py --folder SCRATCH          # some minutes on one core

Latents of random values from clips of one length (2, 6 or 20 s), and from clips of 20 s of which every second has no
pictures, are composed to batches with the windows of production (3 s of voice, 12 s of the latest sound, 96 and 160
units of text). A step of every stage is made with each batch: the orchestrator's (flow and pointer), the teacher's,
dmd's (student and critic), rollout's (student and critic after two chunks). Floating-point operations are counted by
torch; they, and the shapes, are exact and do not depend on the machine. Times are processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader  # noqa: E402 - beside this file
from train_step import Setting, Step, count_flops  # noqa: E402

from datamodules.collate import ChunkCollate  # noqa: E402
from datamodules.compose import ItemComposer  # noqa: E402
from datamodules.config import DataConfig  # noqa: E402
from datamodules.latent_format import ClipRecord  # noqa: E402
from datamodules.latent_shards import LatentStore  # noqa: E402
from datamodules.rollout_items import RolloutCollate, RolloutComposer  # noqa: E402
from streamchar.denoiser.config import DenoiserConfig  # noqa: E402
from streamchar.diffusion.config import DiffusionConfig  # noqa: E402
from streamchar.diffusion.noise import NoiseKey  # noqa: E402
from streamchar.hub.model_spec import ModelSpec  # noqa: E402
from streamchar.objectives.speech import pointer_mean, speech_losses  # noqa: E402
from streamchar.orchestrator.config import OrchestratorConfig  # noqa: E402
from streamchar.types import ChunkBatch, RolloutBatch, tensor_map  # noqa: E402

WINDOW = replace(loader.WINDOW, anchor_s=3.0, recent_s=12.0, max_spoken=96, max_todo=160)
SPEC = ModelSpec(DenoiserConfig(8, 96, patch=3, width=64, layers=2, heads=2, ffn=128, audio_ffn=128),
                 OrchestratorConfig(width=64, layers=2, heads=2, kv_heads=2, ffn=128, pointer_dim=32), loader.CLOCK,
                 WINDOW, DiffusionConfig(), 192)
BATCH, BATCHES = 8, 40
COUNTED = 3
"""Batches of which a step is made."""
STAGES = ("orchestrator", "teacher", "dmd", "rollout")


def main() -> None:
    """Print the table; fails where two kinds of clips give other shapes or numbers of operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch folder for the latents")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loader.SIZES["grid"] = ((8, 9, 12, 12), 96, 24)
    print("| clips of | bytes of a batch | " + " | ".join(f"GFLOP, {stage}" for stage in STAGES)
          + f" | history filled | text filled | composed, ms per item |\n{'|---' * 9}|")
    found = []
    for seconds, silent in ((2.0, False), (6.0, False), (20.0, False), (20.0, True)):
        found.append(_row(options.folder, seconds, silent))
    assert all(row == found[0] for row in found)


def _row(folder: Path, seconds: float, silent: bool) -> tuple[object, ...]:
    """Print the row of clips of one length, every second one without pictures if ``silent``; what must not vary."""
    with patch.object(loader, "CLIP_S", seconds), patch.object(loader, "_clip", _silent if silent else loader._clip):
        store = LatentStore(loader.made(folder / f"{seconds:g}s{silent:d}", "grid"), loader.CLOCK)
    for clip in store.clips:  # the first look at every value is not what is compared
        store.usable(clip)
    items = ItemComposer(store, loader.CLOCK, WINDOW, SPEC.units(), DataConfig(), seed=1)
    collate = ChunkCollate(loader.CLOCK, WINDOW, 96, store.index.video, items.units.width)
    begun = time.process_time()
    batches = [collate([items.item(p) for p in range(b * BATCH, (b + 1) * BATCH)]) for b in range(BATCHES)]
    spent = (time.process_time() - begun) / (BATCH * BATCHES) * 1e3
    heard = ItemComposer(store, loader.CLOCK, WINDOW, SPEC.units(), DataConfig(), seed=1, with_video=False)
    sounds = [ChunkCollate(loader.CLOCK, WINDOW, 96, None, heard.units.width)(
        [heard.item(p) for p in range(b * BATCH, (b + 1) * BATCH)]) for b in range(BATCHES)]
    streams = RolloutComposer(items)
    rollouts = [RolloutCollate(collate)([streams.item(p) for p in range(b * BATCH, (b + 1) * BATCH)])
                for b in range(COUNTED)]
    shapes = [{tuple(_shapes(b)) for b in some} for some in (batches, sounds, rollouts)]
    flops = {stage: {_flops(stage, sounds[b], batches[b], rollouts[b]) for b in range(COUNTED)} for stage in STAGES}
    filled = [(b.conditions.history_mask, torch.cat([b.conditions.spoken.mask, b.conditions.todo.mask], 1))
              for b in (sounds if silent else batches)]
    history, text = (torch.cat(masks).float().mean().item() for masks in zip(*filled, strict=True))
    print(f"| {seconds:g} s{', half of them without pictures' if silent else ''} | "
          f"{sum(n for n, _ in _shapes(batches[0])):,} | "
          + " | ".join(", ".join(f"{n / 1e9:.6f}" for n in sorted(flops[stage])) for stage in STAGES)
          + f" | {history:.0%} | {text:.0%} | {spent:.3f} |", flush=True)
    assert all(len(kinds) == 1 for kinds in (*shapes, *flops.values()))
    return shapes, flops


def _silent(number: int, *rest: Any) -> tuple[ClipRecord, dict[str, Any]]:
    """A clip of random latents; every second one is speech alone."""
    record, tensors = _CLIP(number, *rest)
    if number % 2:
        record = replace(record, has_video=False)
        tensors = {name: t for name, t in tensors.items() if name.startswith("audio")}
    return record, tensors


_CLIP = loader._clip


def _shapes(batch: ChunkBatch | RolloutBatch) -> list[tuple[int, torch.Size]]:
    """Bytes and shape of each tensor."""
    found: list[tuple[int, torch.Size]] = []
    tensor_map(batch, lambda t: found.append((t.nbytes, t.shape)))
    return found


def _flops(stage: str, sound: ChunkBatch, batch: ChunkBatch, streams: RolloutBatch) -> int:
    """Operations of a step of ``stage``, forward and backward."""
    step = _Speech(sound) if stage == "orchestrator" else Step(
        stage, SPEC, 12, Setting(torch.device("cpu"), BATCH, False, "keep", torch.float32))
    if isinstance(step, Step):
        step.batch, step.streams = batch, streams
    return count_flops(step)  # type: ignore[arg-type]


class _Speech:
    """The orchestrator's step."""

    def __init__(self, batch: ChunkBatch) -> None:
        self.batch, self.orchestrator = batch, SPEC.build_orchestrator()
        self.setting = Setting(torch.device("cpu"), BATCH, False, "keep", torch.float32)

    def run(self, number: int) -> None:
        key = NoiseKey(0, tuple(range(BATCH)), "train", number)
        losses = speech_losses(self.orchestrator, self.batch, key, SPEC.diffusion)
        (losses.flow.mean() + pointer_mean(losses.pointer, self.batch)).backward()


if __name__ == "__main__":
    main()
