"""The dry run: every preset is built on the meta device; sizes and work add up."""

from __future__ import annotations

import pytest
import torch

from pipelines.config.compose import compose
from pipelines.config.geometry import geometry
from pipelines.config.grammar import parse
from pipelines.config.places import choices
from pipelines.dry_run.activations import copy_bytes, waiting_bytes
from pipelines.dry_run.memory import bytes_per_rank, world
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


def test_linear_layers_of_zero_3_keep_no_bf16_weights_but_make_gradients_float32() -> None:
    """Seen in their operations under autocast: torch's casts a weight once and sums its gradients in bf16."""
    cfg = compose(parse(["preset=5b", "--dry-run", "trainer.strategy=deepspeed", "trainer.zero_stage=3"]))
    model, role, where = build_on_meta(cfg, geometry(cfg))["denoiser"], Role("critic", "denoiser", True), world(cfg)
    whole = sum(p.numel() for p in model.parameters())
    found = {}
    for cfg.trainer.activations in ("recompute", "selective"):
        found[cfg.trainer.activations] = [f(cfg, role, model, where) for f in (copy_bytes, waiting_bytes)]
    assert [waiting // whole for _, waiting in found.values()] == [4, 2]
    assert found["selective"][0] - found["recompute"][0] == 2 * whole


def test_adapters_are_all_that_a_lora_role_adds() -> None:
    cfg = compose(parse(["preset=5b", "stage=dmd", "dmd.roles=lora", "rollout.roles=lora", "--dry-run"]))
    held, models = {role.name: role for role in roles(cfg, "dmd")}, build_on_meta(cfg, geometry(cfg))
    d, video, audio, rank = cfg.denoiser.width, cfg.denoiser.ffn, cfg.denoiser.audio_ffn, cfg.stages.dmd.lora.rank
    count = 30 * rank * (4 * 2 * d + 2 * (d + video) + 2 * (d + audio))
    for name in ("student", "critic", "student ema"):
        assert bytes_per_rank(held[name], models[held[name].model], 1, "ddp")[0] == 4 * count
    assert bytes_per_rank(held["teacher"], models["denoiser"], 1, "ddp")[0] > 40 * count


def test_a_smaller_student_is_what_streams() -> None:
    cfg = compose(parse(["preset=tiny", "student.layers=1", "--dry-run"]))
    models, held = build_on_meta(cfg, geometry(cfg)), {role.name: role.model for role in roles(cfg, "stream")}
    assert held["denoiser"] == "student" and len(models["student"].blocks) == 1 and len(models["denoiser"].blocks) == 2
    trained = {role.name: role.model for role in roles(cfg, "dmd")}
    assert trained["student"] == trained["student ema"] == "student" and trained["critic"] == "denoiser"


def test_orchestrator_is_one_frozen_copy_from_stage_one_on() -> None:
    cfg = compose(parse(["preset=tiny"]))
    for stage in ("dmd", "rollout"):
        held = {role.name: role.trained for role in roles(cfg, stage)}
        assert held["orchestrator"] is False and held["teacher"] is False
        assert held["student"] and held["critic"]
