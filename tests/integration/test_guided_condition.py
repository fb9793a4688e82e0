"""``diffusion.few_step_guidance`` in whole iterations of dmd and rollout: who hears what, and what is made for it once.

Under FSDP2 and ZeRO the students of ``test_strategies.py`` hear the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.matching_module import MatchingModule
from pipelines.trainer import build_trainer
from pipelines.trainer_config import TrainerConfig
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.types import Conditions
from tests.small_stage import SmallData, build

WEIGHT = 3.0
CHUNKS = {"dmd": 1, "rollout": 2}


class Heard:
    """Notes what every model of a stage is given as c_a, and which blocks the orchestrator made for it."""

    def __init__(self, module: MatchingModule, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks: dict[tuple[int, bool], Tensor] = {}
        self.untold: list[Prefix] = []
        self.by_model: dict[str, list[tuple[int, Tensor]]] = {n: [] for n in ("student", "teacher", "critic")}
        orchestrator: Orchestrator = module.orchestrator
        prefix, block = orchestrator.prefix, orchestrator.block

        def noted_prefix(c: Conditions) -> Prefix:
            found = prefix(c)
            if not c.has_text.any():
                self.untold.append(found)
            return found

        def noted_block(given: Prefix, audio: Tensor, sigma: Tensor) -> Tensor:
            made = block(given, audio, sigma)
            self.blocks[_place(audio, sigma), any(given is p for p in self.untold)] = made
            return made

        monkeypatch.setattr(orchestrator, "prefix", noted_prefix)
        monkeypatch.setattr(orchestrator, "block", noted_block)
        for name, calls in self.by_model.items():
            self._listen(getattr(module, name), calls, monkeypatch)

    def _listen(self, model: Any, calls: list[tuple[int, Tensor]], monkeypatch: pytest.MonkeyPatch) -> None:
        forward = model.forward

        def noted(noisy: Any, sigma: Tensor, c_a: Tensor, *rest: Any) -> Any:
            calls.append((_place(noisy.audio, sigma), c_a.detach()))
            return forward(noisy, sigma, c_a, *rest)

        monkeypatch.setattr(model, "forward", noted)


def _place(audio: Tensor, sigma: Tensor) -> int:
    """One number for a pass: models and blocks of one step are given the same noisy sound at the same level."""
    return hash((audio.detach().numpy().tobytes(), sigma.detach().numpy().tobytes()))


@pytest.mark.parametrize("roles", ["full", "lora"])
@pytest.mark.parametrize("stage", ["dmd", "rollout"])
def test_the_student_alone_hears_a_guided_condition(stage: str, roles: str, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """In the student's start, at the student's turn and at the critic's; whole models and adapters alike."""
    module = build(stage, 8, "adamw", roles, guidance=WEIGHT, start=1)
    assert isinstance(module, MatchingModule)
    module.diffusion.guidance_null = "text"  # the teacher needs the prefix without text too
    before = {name: p.detach().clone() for name, p in module.student.named_parameters() if p.requires_grad}
    heard = Heard(module, monkeypatch)
    options = TrainerConfig(accelerator="cpu", log_every=1, val_batches=1)
    trainer = build_trainer(options, 3, tmp_path, [])
    trainer.limit_val_batches = 0
    trainer.fit(module, SmallData(stage))
    assert module.updates == {"trajectory": 1, "student": 1, "critic": 2}
    for at, c_a in heard.by_model["student"]:
        told, untold = heard.blocks[at, False], heard.blocks[at, True]
        torch.testing.assert_close(c_a, WEIGHT * told - (WEIGHT - 1) * untold)
        assert (told - untold).abs().max() > 1e-4
    for at, c_a in heard.by_model["critic"]:
        assert torch.equal(c_a, heard.blocks[at, False])
    for at, c_a in heard.by_model["teacher"]:  # one branch with text, one without
        assert torch.equal(c_a, heard.blocks[at, False]) or torch.equal(c_a, heard.blocks[at, True])
    assert all(heard.by_model.values())
    assert len(heard.untold) == 3 * CHUNKS[stage]  # one for every chunk serves all who hear it
    moved = {name for name, p in module.student.named_parameters() if name in before
             and not torch.equal(p, before[name])}
    assert moved and all((".lora_" in name) == (roles == "lora") for name in moved)
