"""The dry run's figures beside what real steps take: bytes of live tensors, and operations that torch counts."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.config import DmdStage, OrchestratorStage, RolloutStage, TeacherStage
from lightning_modules.dmd_module import DmdModule
from lightning_modules.orchestrator_module import OrchestratorModule
from lightning_modules.rollout_module import RolloutModule
from lightning_modules.stage_module import StageModule
from lightning_modules.teacher_module import TeacherModule
from pipelines.config.geometry import geometry
from pipelines.config.schema import TRAINING, RunConfig
from pipelines.dry_run.footprint import Footprint, footprint
from pipelines.dry_run.work import iteration
from streamchar.denoiser.adapters import adapted
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Context, Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.distributed.activations import checkpoint_activations
from streamchar.distributed.sharding import Sharding, open_up
from streamchar.nn import attention
from streamchar.orchestrator import masked_attention
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.orchestrator.model import Orchestrator
from streamchar.rollout.character import Character
from streamchar.types import Latents
from tests import tiny_models as tiny
from tests.integration.test_stage_modules import Data
from tests.live_bytes import LiveBytes

GRID = 8
MODES = ("keep", "selective", "recompute")
SOON = {("teacher", "keep", "full", 1), ("teacher", "recompute", "full", 2), ("dmd", "keep", "full", 1),
        ("dmd", "recompute", "full", 1), ("rollout", "recompute", "full", 2)}
CASES = [pytest.param(*case, marks=() if case in SOON else pytest.mark.slow)
         for stage, roles in (*((stage, "full") for stage in TRAINING), ("dmd", "lora"))
         for mode in MODES for case in ((stage, mode, roles, 1), (stage, mode, roles, 2))]


def config(**trainer: Any) -> RunConfig:
    """Tiny models, but with enough tokens and layers that they, and not odds and ends, decide."""
    cfg = RunConfig(denoiser=DenoiserConfig(tiny.CHANNELS, tiny.AUDIO, width=64, layers=6, heads=2, ffn=192,
                                            audio_ffn=96),
                    orchestrator=OrchestratorConfig(width=64, layers=4, heads=2, kv_heads=2, ffn=160, word_width=8,
                                                    pointer_dim=16),
                    window=tiny.WINDOW, diffusion=DiffusionConfig(teacher_steps=3))
    cfg.clock.fps, cfg.clock.chunk_frames, cfg.data.size, cfg.data.batch_size = 25.0, 17, 8 * GRID, 4
    cfg.codec.video.channels, cfg.codec.audio.channels, cfg.codec.audio.stack = tiny.CHANNELS, tiny.AUDIO, 4
    cfg.stages.orchestrator = OrchestratorStage(steps=8)
    cfg.stages.teacher = TeacherStage(steps=8)
    cfg.stages.dmd = DmdStage(steps=8, critic_per_generator=1)
    cfg.stages.rollout = RolloutStage(steps=8, critic_per_generator=1, first_max_chunks=2, max_chunks=2, batch_size=2)
    for key, value in trainer.items():
        setattr(cfg.trainer, key, value)
    return cfg


def build(stage: str, cfg: RunConfig) -> StageModule:
    clock = geometry(cfg).clock
    denoiser = Denoiser(cfg.denoiser, clock, cfg.window)
    orchestrator = Orchestrator(cfg.orchestrator, clock, tiny.AUDIO, cfg.denoiser.width)
    character = Character(denoiser, orchestrator, clock, cfg.window, tiny.UNITS, cfg.diffusion, 8 * GRID,
                          few_step=stage != "teacher")
    if stage == "orchestrator":
        module: StageModule = OrchestratorModule(orchestrator, cfg.stages.orchestrator, cfg.diffusion, 0)
    elif stage == "teacher":
        module = TeacherModule(character, cfg.stages.teacher, 0)
    else:
        options = getattr(cfg.stages, stage)
        character.denoiser, critic = ((adapted(denoiser, options.lora, name) for name in ("student", "critic"))
                                      if options.roles == "lora" else (deepcopy(denoiser), deepcopy(denoiser)))
        module = (DmdModule if stage == "dmd" else RolloutModule)(character, denoiser, critic, options, 0)
    for model in module.children():
        if any(p.requires_grad for p in model.parameters()):
            checkpoint_activations(model, cfg.trainer.activations)
    return module


def second_step(module: StageModule, counter: Any) -> None:
    """Train two steps, the second inside of ``counter``: by then optimisers have their states, which a counter of bytes
    must know, since operations in place give them back as if they had made them."""
    original = module.training_step

    def training_step(batch: Any, batch_idx: int) -> None:
        if batch_idx and isinstance(counter, LiveBytes):
            states = (module.role_optimizer(role).optimizer.state for role in module.role_names())
            counter.know(*(value for state in states for values in state.values() for value in values.values()))
        with counter if batch_idx else nullcontext():
            original(batch, batch_idx)

    module.training_step = training_step  # type: ignore[method-assign]
    trainer = L.Trainer(max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, devices=1,
                        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)
    trainer.fit(module, Data("rollout" if isinstance(module, RolloutModule) else module.clock_role))


@pytest.fixture(autouse=True)
def a_larger_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "GRID", GRID)


def plain_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """As matrix products, which torch can count on a CPU."""
    for room in (attention, masked_attention):
        monkeypatch.setattr(room, "backend", lambda *_: "plain")


def lasting(found: Footprint, name: str) -> tuple[int, int, int]:
    role = next(r for r in found.roles if r.role.name == name)
    return role.weights, role.gradients, role.optimizer


@pytest.mark.parametrize("stage, activations, roles, accumulate", CASES)
def test_bytes_of_a_step_are_as_planned(stage: str, activations: str, roles: str, accumulate: int) -> None:
    cfg = config(activations=activations)
    cfg.stages.dmd.roles, cfg.stages.dmd.lora.rank = roles, 8
    getattr(cfg.stages, stage).accumulate = accumulate
    module, found, live = build(stage, cfg), footprint(cfg, stage), LiveBytes()
    live.know(*module.parameters())
    second_step(module, live)
    planned = found.peak - sum(r.lasting for r in found.roles)
    assert planned == pytest.approx(live.peak, rel=0.15)
    for name, own in module.role_modules.items():
        learn = [p for m, _ in own for p in m.parameters() if p.requires_grad]
        states = [v for p in learn for v in module.role_optimizer(name).optimizer.state[p].values() if v.ndim]
        names = ("denoiser", "orchestrator") if stage == "teacher" else (name,)
        planned_of = zip(*(lasting(found, n) for n in names), strict=True)
        weights, gradients, optimizer = (sum(column) for column in planned_of)
        assert gradients == pytest.approx(sum(p.nbytes for p in learn), rel=0.01)
        assert optimizer == pytest.approx(sum(v.nbytes for v in states), rel=0.01)
        whole = learn if roles == "lora" else [p for m, _ in own for p in m.parameters()]
        assert weights == pytest.approx(sum(p.nbytes for p in whole), rel=0.01)


def test_bytes_of_several_draws_on_one_prefix_are_as_planned() -> None:
    cfg = config()
    cfg.stages.orchestrator.draws = 3
    module, found, live = build("orchestrator", cfg), footprint(cfg, "orchestrator"), LiveBytes()
    live.know(*module.parameters())
    second_step(module, live)
    assert found.peak - sum(r.lasting for r in found.roles) == pytest.approx(live.peak, rel=0.15)


@pytest.mark.parametrize("stage, activations", [
    ("teacher", "keep"), ("dmd", "keep"), pytest.param("teacher", "recompute", marks=pytest.mark.slow)])
def test_operations_of_a_step_are_as_planned(stage: str, activations: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_attention(monkeypatch)
    cfg = config(activations=activations)
    module, counter = build(stage, cfg), FlopCounterMode(display=False)
    if stage == "dmd":
        exits = iter((0, 1))  # the mean over exits of four steps is between 1 and 2
        monkeypatch.setattr(module, "exit_step", lambda: next(exits))
        cfg.diffusion.few_steps = [1.0, 0.75, 0.5]
    second_step(module, counter)
    work = iteration(cfg, geometry(cfg), stage) * cfg.data.batch_size
    planned = work.useful + work.again + work.frozen
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_gradients_of_a_step_wait_whole_for_those_of_the_context(tmp_path: Path) -> None:
    """Also under FSDP2: when the context's backward pass begins, the parts of no block but the last have a gradient."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        open_up(Latents, Context)
        model = tiny.denoiser()
        Sharding(init_device_mesh("cpu", (1,))).apply_all([model])
        conditions, reduced = tiny.conditions(), {}
        context = model.encode_context(conditions)
        context.keys_values[-1][0].register_hook(lambda _: reduced.update(
            {i: [p.grad is not None for p in block.parameters()] for i, block in enumerate(model.blocks)}))
        made = model(tiny.latents(), torch.tensor([0.3, 0.8]), torch.ones(2, tiny.CLOCK.audio_latents, 32), context,
                     conditions.audio_time)
        (made.video.square().mean() + made.audio.square().mean()).backward()
        after = [p.grad is not None for p in model.blocks.parameters()]
    finally:
        dist.destroy_process_group()
    assert len(reduced) == 2 and not any(reduced[0]) and all(after)
