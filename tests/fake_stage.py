"""A small stand-in for a training stage: two roles, counted noise, infinite data with a cursor; trains in milliseconds.

``python -m tests.fake_stage FOLDER key=value ...`` trains it in a process of its own, to be sent signals.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from callbacks.config import CallbackConfig, TrackingConfig
from lightning_modules.optimizer_state import load_named_state, named_state
from pipelines.fitting import Fit, fit
from pipelines.resume import find_start
from pipelines.run_directory import RunDirectory
from pipelines.tracking import open_loggers
from pipelines.trainer_config import TrainerConfig
from streamchar.evaluation.pointer_map import PointerMap
from streamchar.evaluation.records import PointerRecord, SampleVideo

EVERY = 3


class Memory:
    """A stream's memory: counts its chunks."""

    def __init__(self) -> None:
        self.chunk = torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        return {"chunk": self.chunk.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chunk = state["chunk"].clone()


class FakeModule(L.LightningModule):
    """A critic stepped in every iteration, a student in every third; a frozen teacher that is never stored."""

    ema_roles = ("student",)
    chunk_seconds = 1.0
    headline_metrics = ("eval/loss",)

    def __init__(self, pause: float = 0.0, width: int = 4, hang: int = -1) -> None:
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.student, self.critic, self.teacher = (nn.Linear(width, width) for _ in range(3))
        self.teacher.requires_grad_(False)
        self.pause, self.hang, self.iteration, self.generator_updates = pause, hang, 0, 0
        self.seen: list[int] = []
        self.validated: list[int] = []
        self.pointer_records: list[PointerRecord] = []
        self.pointer_maps: list[PointerMap] = []
        self.memory, self.extra = Memory(), 0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW(m.parameters(), lr=0.01) for m in (self.critic, self.student)]

    def role_parameters(self, role: str) -> dict[str, torch.Tensor]:
        return dict(getattr(self, role).named_parameters())

    def checkpoint_state_dict(self, keep: bool = True) -> dict[str, Any]:
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith("teacher.")}
        names = {p: n for n, p in self.named_parameters()}
        states = [named_state(o.optimizer, names, keep) for o in self.optimizers()]
        return {"weights": weights, "optimizers": dict(zip(("critic", "student"), states, strict=True)),
                "counters": {"iteration": self.iteration, "updates": self.generator_updates},
                "extra": {"number": self.extra}}

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state["weights"], strict=False)
        self.iteration, self.generator_updates = state["counters"]["iteration"], state["counters"]["updates"]
        self.extra = state["extra"].get("number", -1)

    def load_optimizer_states(self, state: dict[str, Any]) -> None:
        names = {p: n for n, p in self.named_parameters()}
        for role, wrapped in zip(("critic", "student"), self.optimizers(), strict=True):
            load_named_state(wrapped.optimizer, names, state["optimizers"][role])

    def stream_memories(self) -> dict[str, Memory]:
        return {"held-out": self.memory}

    def training_step(self, batch: torch.Tensor, _: int) -> None:
        time.sleep(self.pause)
        if self.iteration == self.hang and self.global_rank == self.trainer.world_size - 1:
            threading.Event().wait()
        self.seen += batch.tolist()
        x = torch.sin(batch.float())[:, None] + torch.arange(self.critic.in_features) * 0.1
        critic, student = self.optimizers()
        loss = (self.critic(x) - self.teacher(x)).square().mean()
        self.manual_backward(loss)
        critic.step()
        critic.zero_grad()
        if self.iteration % EVERY == 0:
            self.manual_backward((self.student(x) - self.critic(x).detach()).square().mean())
            student.optimizer.step()
            student.optimizer.zero_grad()
            self.generator_updates += 1
        self.log_dict({"train/loss": float(loss.detach()), "train/seen": float(batch[0])}, on_step=True, on_epoch=False)
        self.iteration += 1
        self.extra += 1
        self.trainer.datamodule.consumed += len(batch)

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.validated.append(self.trainer.global_step)
        self.memory.chunk = self.memory.chunk + 1
        self.log("eval/loss", self.student.weight.detach().sum(), on_epoch=True, sync_dist=True)
        chunk = len(self.validated) % 4
        self.pointer_maps = [PointerMap("a", 0.0, 25.0, [(0.0, 0.0), (0.08, 1.5)], [], ["bin", "red"],
                                        [(0, np.array([1.0, 0.0], np.float32), 1.0)] * 2)]
        self.pointer_records.append(PointerRecord("a", chunk, chunk + 1.5, chunk + 1.0, chunk + 3.0, 9, chunk == 2))

    def probe_stream(self, chunks: int) -> Any:
        assert not self.training and not torch.is_grad_enabled()
        yield from range(chunks)

    def sample_videos(self, averaged) -> list[SampleVideo]:
        frames = torch.linspace(0, 1, 25).reshape(-1, 1, 1, 1).expand(-1, 3, 32, 48)
        wave = torch.sin(torch.arange(16000) * 0.1)
        return [SampleVideo("s 1", {"reference": frames[:1], "student": frames}, wave, 16000, 25.0)]


class Numbers(IterableDataset):
    """0, 1, 2, ... from the cursor on, in batches; ``limit`` ends it early."""

    def __init__(self, data: FakeData) -> None:
        self.data = data

    def __iter__(self) -> Any:
        at = self.data.consumed
        while self.data.limit is None or at < self.data.limit:
            yield torch.arange(at, at + 2)
            at += 2


class FakeData(L.LightningDataModule):
    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.consumed, self.limit = 0, limit

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Numbers(self), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.arange(2), batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]


def train(root: Path, steps: int, module: FakeModule | None = None, data: FakeData | None = None,
          tracking: str = "off", uri: str = "", resume: str = "auto", callbacks: dict[str, Any] | None = None,
          **trainer: Any) -> tuple[bool, FakeModule]:
    """Train the stage of ``root/run/teacher`` as the real stage does; whether it is complete, and the module."""
    folder = root / "run" / "teacher"
    folder.mkdir(parents=True, exist_ok=True)
    cfg = TrainerConfig(**{"log_every": 1, "val_every": 0, "ckpt_every": 2, "accelerator": "cpu", "threads": 1,
                           "resume": resume, **trainer})
    options = CallbackConfig(TrackingConfig(tracking, uri, finish_s=60), **{"pointer": False, **(callbacks or {})})
    start = find_start(folder / "checkpoints", cfg.resume, {"seed": 0})
    step = int(start.name.split("_")[1]) if start else None
    loggers = open_loggers(options.tracking, RunDirectory(root, "run"), "teacher", step, {"seed": 0})
    job = Fit("teacher", folder, steps, cfg, options, (0.5, 1), start, {"settings": {"seed": 0}, "config": "seed: 0\n"})
    module = module or FakeModule()
    return fit(job, module, data or FakeData(), loggers), module


def main() -> None:
    """Train in this process; prints whether the stage is complete and which samples it saw."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    options = dict(pair.split("=", 1) for pair in sys.argv[2:])
    hang = int(options.pop("hang", "-1"))  # for ever, in the last rank, in a job's first life
    module = FakeModule(float(options.pop("pause", "0")), hang=-1 if "SLURM_RESTART_COUNT" in os.environ else hang)
    numbers = {k: v if k in ("resume", "strategy", "tracking", "uri") else json.loads(v) for k, v in options.items()}
    complete, module = train(Path(sys.argv[1]), int(numbers.pop("steps")), module, **numbers)
    print("RESULT", json.dumps({"complete": complete, "seen": module.seen}))


if __name__ == "__main__":
    main()
