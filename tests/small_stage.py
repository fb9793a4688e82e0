"""Any of the four training stages with tiny models under a strategy, as ``fit`` runs them; trains in seconds.

``python -m tests.small_stage FOLDER STAGE key=value ...`` trains it from the command line; ``tests/ranks.py`` in
processes of its own.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from callbacks.config import CallbackConfig, TrackingConfig
from callbacks.ema import AveragedWeights
from callbacks.step_logger import StepLogger
from lightning_modules import batched_muon
from lightning_modules.config import (
    DmdStage,
    OptimizerConfig,
    OrchestratorStage,
    RolloutStage,
    TeacherStage,
    TrajectoryConfig,
)
from lightning_modules.dmd_module import DmdModule
from lightning_modules.orchestrator_module import OrchestratorModule
from lightning_modules.rollout_module import RolloutModule
from lightning_modules.stage_module import StageModule
from lightning_modules.teacher_module import TeacherModule
from pipelines.fitting import Fit, fit
from pipelines.resume import find_start, made_by
from pipelines.run_directory import RunDirectory
from pipelines.strategies import zero
from pipelines.trainer_config import TrainerConfig
from streamchar.denoiser.adapter_config import AdapterConfig
from streamchar.denoiser.adapters import adapted
from streamchar.denoiser.model import Denoiser
from streamchar.orchestrator.model import Orchestrator
from streamchar.types import ChunkBatch
from tests import tiny_models as tiny

STAGES = ("orchestrator", "teacher", "dmd", "rollout")
STRATEGIES = {
    "single": ["strategy=single", "devices=1", "pairs=2"], "ddp": ["strategy=ddp"], "fsdp2": ["strategy=fsdp2"],
    "hsdp": ["strategy=fsdp2", "shard_ranks=1"], "fsdp2-offload": ["strategy=fsdp2", "frozen=offload"],
    "zero-1": ["strategy=deepspeed", "zero_stage=1"], "zero-2": ["strategy=deepspeed", "zero_stage=2"],
    "zero-3": ["strategy=deepspeed", "zero_stage=3", "frozen=shard",
               "whole_below=500"]}
"""Options of every strategy on two processes; ``single`` has the samples of both in its batches. ``whole_below``:
ZeRO-3 takes matrices of tiny models apart too."""
WORDS = [["bin", "red", "at", "c", "nine", "now"] * 4, ["set", "blue"] * 8]
PER_RANK = 2


class Batches(IterableDataset):
    """This rank's rows of one global, endless sequence, from the place that the data module counts."""

    def __init__(self, data: SmallData) -> None:
        self.data = data

    def __iter__(self) -> Any:
        trainer, at = self.data.trainer, self.data.consumed
        while True:
            size = PER_RANK * self.data.pairs
            yield self.data.batch(at + size * trainer.global_rank)
            at += size * trainer.world_size


def joined(first: Any, *more: Any) -> Any:
    """One batch of several."""
    if isinstance(first, torch.Tensor):
        return torch.cat((first, *more))
    if isinstance(first, list):
        return sum(more, first)
    if first is None:
        return None
    return type(first)(**{f.name: joined(*(getattr(b, f.name) for b in (first, *more))) for f in fields(first)})


class SmallData(L.LightningDataModule):
    """Random conditions and targets, a function of the sample's number.

    pairs: two samples each, of one batch. poison: the number of a chunk whose sound is not finite. seen: every so
    manieth chunk alone has pictures.
    """

    def __init__(self, stage: str, pairs: int = 1, poison: int | None = None, seen: int = 1) -> None:
        super().__init__()
        self.stage, self.pairs, self.poison, self.seen, self.consumed = stage, pairs, poison, seen, 0

    def batch(self, number: int) -> Any:
        return joined(*(self.pair(number + PER_RANK * i) for i in range(self.pairs)))

    def pair(self, number: int) -> Any:
        if self.stage == "rollout":
            streams = tiny.streams(WORDS)
            streams.index.copy_(torch.arange(len(WORDS)) + number)
            return streams
        target = tiny.latents(PER_RANK, seed=number)
        if self.poison is not None and number <= self.poison < number + PER_RANK:
            target.audio[self.poison - number] = float("nan")
        index = torch.arange(PER_RANK) + number
        return ChunkBatch(tiny.conditions(PER_RANK, seed=number), target, torch.ones(target.audio.shape[:2]),
                          index % self.seen == 0, torch.full((PER_RANK,), 1.5), index,
                          [f"k{number + i}" for i in range(PER_RANK)])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Batches(self), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self.batch(90), self.batch(92)], batch_size=None, collate_fn=lambda b: b)

    def advance(self, samples: int) -> None:
        self.consumed += samples * self.trainer.world_size

    def fixed_streams(self, count: int) -> Any:
        return tiny.streams(WORDS[:count])

    def spoken_clips(self, count: int) -> list[Any]:
        return [tiny.spoken_clip()]

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]


LORA = AdapterConfig(rank=4, alpha=8.0)


@torch.no_grad()
def answers(model: nn.Module) -> list[Tensor]:
    """What a denoiser or an orchestrator makes of fixed inputs."""
    c, x, sigma = tiny.conditions(), tiny.latents(), torch.tensor([0.3, 0.8])
    if isinstance(model, Orchestrator):
        prefix = model.prefix(c)
        return [model.block(prefix, x.audio, sigma), model.point(prefix, x.audio)]
    v = model(x, sigma, torch.ones(*x.audio.shape[:2], model.config.width), model.encode_context(c), c.audio_time)
    return [v.video, v.audio]


class AveragedAnswers(StepLogger):
    """At the end of a training that is complete: ``answers.pt``, those of every averaged model as it is in memory then,
    on all ranks together where they share it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def write(self, step: int, row: dict[str, float]) -> None:
        """Nothing of the steps."""

    def finish(self, status: str) -> None:
        trainer = self._trainer
        if status != "FINISHED" or trainer is None:
            return
        module: Any = trainer.lightning_module
        average = next(c for c in trainer.callbacks if isinstance(c, AveragedWeights))
        with average.swapped(module):
            found = {role: answers(getattr(module, role)) for role in module.ema_roles}
        if trainer.is_global_zero:
            torch.save(found, self.path)


def build(stage: str, steps: int, kind: str, roles: str = "full", denoisers: list[Denoiser] | None = None,
          guidance: float = 1.0, start: int = 0, clip: float = 10.0) -> StageModule:
    """The stage's module around tiny models.

    Args:
        denoisers: student, teacher and critic in place of equal ones.
        guidance: of the condition that the student hears.
        start: iterations of the student's start on the teacher's trajectories.
        clip: largest gradient norm of every role.
    """
    character, rate = tiny.character(), OptimizerConfig(kind=kind, lr=1e-3, clip=clip)
    character.diffusion.few_step_guidance = guidance
    if stage == "orchestrator":
        return OrchestratorModule(character.orchestrator, OrchestratorStage(steps=steps, optimizer=rate),
                                  character.diffusion, 0)
    if stage == "teacher":
        return TeacherModule(character, TeacherStage(steps=steps, optimizer=rate), 0)
    teacher = character.denoiser
    student, critic = ((adapted(teacher, LORA, name) for name in ("student", "critic")) if roles == "lora"
                       else (deepcopy(teacher), deepcopy(teacher)))
    student, teacher, critic = denoisers or (student, teacher, critic)
    character = replace(character, denoiser=student)
    common = {"steps": steps, "roles": roles, "lora": LORA, "critic": rate, "critic_per_generator": 2,
              "generator": OptimizerConfig(lr=1e-3, betas=[0.0, 0.999], clip=clip), "generator_from": start,
              "trajectory": TrajectoryConfig(start, 3, optimizer=OptimizerConfig(lr=2e-3, clip=clip))}
    if stage == "dmd":
        return DmdModule(character, teacher, critic, DmdStage(**common), 0)
    return RolloutModule(character, teacher, critic, RolloutStage(
        **common, min_chunks=2, first_max_chunks=2, max_chunks=2, warmup_iterations=1), 0)


def train(root: Path, stage: str, steps: int, kind: str = "adamw", loggers: Sequence[StepLogger] = (),
          pairs: int = 1, roles: str = "full", made: dict[str, Any] | None = None,
          denoisers: list[Denoiser] | None = None, accumulate: int = 1, guidance: float = 1.0, start: int = 0,
          clip: float = 10.0, poison: int | None = None, seen: int = 1, **trainer: Any) -> bool:
    """Train ``root/run/STAGE`` to ``steps`` or go on with it; whether it is complete."""
    folder = root / "run" / stage
    folder.mkdir(parents=True, exist_ok=True)
    cfg = TrainerConfig(**{"log_every": 1, "val_every": 4, "ckpt_every": 2, "accelerator": "cpu", "threads": 1,
                           **trainer})
    if made is None and (folder.parent / "teacher" / "checkpoints").exists() and stage != "teacher":
        made = {"made.teacher": made_by(RunDirectory(root, "run"), "teacher")}
    settings = {"seed": 0} | (made or {})
    begin = find_start(folder / "checkpoints", cfg.resume, settings)
    callbacks = CallbackConfig(TrackingConfig("off", "", finish_s=60), pointer=False, samples_every=0, probe_every=0)
    job = Fit(stage, folder, steps, cfg, callbacks, (0.5, 0), begin, {"settings": settings, "config": "seed: 0\n"})
    module = build(stage, 8, kind, roles, denoisers, guidance, start, clip)
    module.stage.accumulate = accumulate
    return fit(job, module, SmallData(stage, pairs, poison, seen), loggers)


def main(arguments: Sequence[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    pairs = dict(pair.split("=", 1) for pair in arguments[2:])
    words = ("resume", "strategy", "frozen", "precision", "kind", "activations", "roles", "products")
    values = {k: v if k in words else json.loads(v) for k, v in pairs.items()}
    if values.pop("products", None) == "float32":  # Muon's, as on a processor without bfloat16
        batched_muon.fast_bfloat16 = lambda device: False
    zero.SMALL = values.pop("whole_below", zero.SMALL)
    root, stage = Path(arguments[0]), arguments[1]
    root.mkdir(parents=True, exist_ok=True)
    complete = train(root, stage, int(values.pop("steps")), loggers=[AveragedAnswers(root / "answers.pt")], **values)
    print("RESULT", json.dumps({"complete": complete}))


if __name__ == "__main__":
    main(sys.argv[1:])
