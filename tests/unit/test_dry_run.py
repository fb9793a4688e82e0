"""The dry run: every preset is built on the meta device; sizes and work add up."""

from __future__ import annotations

import pytest
import torch

from pipelines.config.compose import compose
from pipelines.config.geometry import geometry
from pipelines.config.grammar import parse
from pipelines.config.places import choices
from pipelines.dry_run.memory import bytes_per_rank
from pipelines.dry_run.roles import Role, build_on_meta, roles
from pipelines.run import main


@pytest.mark.parametrize("preset", choices("preset"))
def test_every_preset_builds_without_memory(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"preset={preset}", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "student" in text and "Chunk plan" in text


def test_production_has_the_sizes_of_the_design() -> None:
    cfg = compose(parse(["preset=5b", "--dry-run"]))
    models = build_on_meta(cfg, geometry(cfg))
    sizes = {name: sum(p.numel() for p in model.parameters()) / 1e9 for name, model in models.items()}
    assert all(p.is_meta for model in models.values() for p in model.parameters())
    assert 4.3 < sizes["denoiser"] < 5.5 and 2.8 < sizes["orchestrator"] < 3.3


def test_bytes_follow_optimiser_and_sharding() -> None:
    model = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(8, 8, bias=False)]),
                                 "head": torch.nn.Linear(8, 8, bias=False)})
    adamw, muon, frozen = Role("r", "m", True), Role("r", "m", True, "muon"), Role("r", "m", False)
    assert bytes_per_rank(adamw, model, 4, "ddp") == (512, 1024, 1024)
    assert bytes_per_rank(muon, model, 4, "ddp") == (512, 1024, 768)
    assert bytes_per_rank(frozen, model, 4, "ddp") == (512, 0, 0)
    assert bytes_per_rank(adamw, model, 4, "fsdp2") == (128, 128, 256)
    assert bytes_per_rank(adamw, model, 4, "ZeRO-1") == (512, 512, 384)
    assert bytes_per_rank(frozen, model, 4, "fsdp2", "replicate") == (512, 0, 0)
    assert bytes_per_rank(frozen, model, 4, "ZeRO-3") == (512, 0, 0)
    assert bytes_per_rank(frozen, model, 4, "ZeRO-3", "shard") == (128, 0, 0)
    assert bytes_per_rank(frozen, model, 4, "fsdp2", "offload") == (0, 0, 0)
    assert bytes_per_rank(Role("student ema", "m", False), model, 4, "fsdp2", "replicate") == (128, 0, 0)


def test_orchestrator_is_one_frozen_copy_from_stage_one_on() -> None:
    cfg = compose(parse(["preset=tiny"]))
    for stage in ("dmd", "rollout"):
        held = {role.name: role.trained for role in roles(cfg, stage)}
        assert held["orchestrator"] is False and held["teacher"] is False
        assert held["student"] and held["critic"]
