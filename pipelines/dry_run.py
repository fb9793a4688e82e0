"""``--dry-run``: what would run, built without memory: parameters and bytes per role, FLOPs and the chunk plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.config.geometry import Geometry, geometry
from pipelines.config.schema import RunConfig
from streamchar.denoiser.adapters import adapted
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.flops import chunk_tokens, context_flops, step_flops
from streamchar.denoiser.model import Denoiser
from streamchar.orchestrator.model import Orchestrator

_FP32 = 4


@dataclass(frozen=True)
class Role:
    """One set of weights in a stage. ``trained``: with gradients and optimiser states."""

    name: str
    model: str
    trained: bool
    optimizer: str = "adamw"

    @property
    def average(self) -> bool:
        """Whether it is the average of a trained role."""
        return self.name.endswith("ema")


def roles(cfg: RunConfig, stage: str) -> list[Role]:
    """Which weights a stage holds in memory."""
    if stage == "orchestrator":
        kind = cfg.stages.orchestrator.optimizer.kind
        return [Role("orchestrator", "orchestrator", True, kind), Role("ema", "orchestrator", False)]
    if stage == "teacher":
        kind = cfg.stages.teacher.optimizer.kind
        return [Role("denoiser", "denoiser", True, kind), Role("orchestrator", "orchestrator", True, kind),
                Role("denoiser ema", "denoiser", False), Role("orchestrator ema", "orchestrator", False)]
    if stage in ("dmd", "rollout"):
        options = getattr(cfg.stages, stage)
        student = options.generator.kind
        if options.trajectory.steps:  # the larger of two optimisers that never live together
            student = max(student, options.trajectory.optimizer.kind, key=lambda kind: kind == "adamw")
        # A critic has its teacher's size, whatever the student's.
        own = ("adapters", "adapters") if options.roles == "lora" else ("student", "denoiser")
        return [Role("student", own[0], True, student), Role("critic", own[1], True, options.critic.kind),
                Role("student ema", own[0], False), Role("teacher", "denoiser", False),
                Role("orchestrator", "orchestrator", False)]
    if few_step(cfg):
        return [Role("denoiser", "student", False), Role("orchestrator", "orchestrator", False)]
    return [Role("denoiser", "denoiser", False), Role("orchestrator", "orchestrator", False)]


def few_step(cfg: RunConfig) -> bool:
    """Whether the chain ends with a student."""
    return any(stage in cfg.chain for stage in ("dmd", "rollout"))


def build_on_meta(cfg: RunConfig, shape: Geometry) -> dict[str, torch.nn.Module]:
    """The models with the run's sizes, on the meta device: shapes without memory; ``adapters`` of one role alone."""
    denoiser = _with_channels(cfg, shape)
    with torch.device("meta"):
        models: dict[str, torch.nn.Module] = {
            "denoiser": Denoiser(denoiser, shape.clock, cfg.window),
            "student": Denoiser(cfg.student.of(denoiser), shape.clock, cfg.window),
            "orchestrator": Orchestrator(cfg.orchestrator, shape.clock, shape.audio_channels, denoiser.width),
        }
        for options in (cfg.stages.dmd, cfg.stages.rollout):
            if options.roles == "lora":
                role = adapted(Denoiser(denoiser, shape.clock, cfg.window), options.lora, "student")
                models["adapters"] = torch.nn.ParameterDict(
                    {name.replace(".", "/"): p for name, p in role.named_parameters() if ".lora_" in name})
    return models


def dry_run(cfg: RunConfig, console: Console) -> None:
    """Print sizes of every training stage (or of ``cfg.stage`` alone), FLOPs per chunk and the chunk plan."""
    shape = geometry(cfg)
    models = build_on_meta(cfg, shape)
    stages = [cfg.stage] if cfg.stage not in ("", "all") else ["orchestrator", "teacher", "dmd", "rollout", "stream"]
    ranks, sharding = world(cfg)
    console.print(f"[bold]preset {cfg.preset}[/]: {ranks} rank{'s' if ranks > 1 else ''}, {sharding}")
    console.print(_memory_table(cfg, stages, models, ranks, sharding))
    console.print(_flops_table(cfg, shape))
    console.print(_plan_table(cfg, shape))


def world(cfg: RunConfig) -> tuple[int, str]:
    """Ranks of the configured trainer and how they share the work; numbers that Slurm gives count as 1."""
    ranks = max(1, cfg.trainer.devices) * max(1, cfg.trainer.nodes)
    strategy = cfg.trainer.strategy
    if strategy == "deepspeed":
        return ranks, f"ZeRO-{cfg.trainer.zero_stage}"
    return ranks, ("ddp" if ranks > 1 else "single") if strategy == "auto" else strategy


def bytes_per_rank(role: Role, model: torch.nn.Module, ranks: int, sharding: str,
                   frozen: str = "auto") -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimiser states on one rank's device; fp32 masters throughout.

    ranks: those that share one copy out. fsdp2 and ZeRO-3 cut all three by their number, ZeRO-2 gradients and states,
    ZeRO-1 the states; ddp none. ZeRO keeps one more copy of the weights it trains, cut like a state.
    frozen: ``trainer.frozen``, for roles that are not trained (averages follow their role).
    """
    count = sum(p.numel() for p in model.parameters())
    weights, gradients, states = _FP32 * count, 0, 0
    if role.trained:
        gradients = _FP32 * count
        # Muon keeps one state for a block's matrix, AdamW two for everything.
        matrices = sum(p.numel() for n, p in model.named_parameters() if _is_block_matrix(n, p))
        states = _FP32 * (2 * count - (matrices if role.optimizer == "muon" else 0))
    cut = {"fsdp2": 3, "ZeRO-3": 3, "ZeRO-2": 2, "ZeRO-1": 1}.get(sharding, 0)
    if role.trained and sharding.startswith("ZeRO"):
        states += _FP32 * count
    if not role.trained and cut and not role.average:
        cut = {"replicate": 0, "shard": 3, "offload": 3, "auto": 3 if sharding == "fsdp2" else 0}[frozen]
        weights = 0 if frozen == "offload" else weights
    return (weights // (ranks if cut >= 3 else 1), gradients // (ranks if cut >= 2 else 1),
            states // (ranks if cut >= 1 else 1))


def _with_channels(cfg: RunConfig, shape: Geometry) -> DenoiserConfig:
    return replace(cfg.denoiser, video_channels=shape.video_channels, audio_channels=shape.audio_channels)


def _is_block_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    return parameter.ndim == 2 and ("blocks" in name or "layers" in name)


def _memory_table(cfg: RunConfig, stages: list[str], models: dict[str, torch.nn.Module], ranks: int,
                  sharding: str) -> Table:
    table = Table("stage", "role", "params", "weights", "grads", "optim", "a rank", box=box.SIMPLE, padding=0,
                  pad_edge=False, title="Weights in memory (fp32, without activations)", title_justify="left")
    for stage in stages:
        total = 0
        for role in roles(cfg, stage):
            model = models[role.model]
            parts = bytes_per_rank(role, model, cfg.trainer.shard_ranks or ranks, sharding, cfg.trainer.frozen)
            total += sum(parts)
            count = sum(p.numel() for p in model.parameters())
            table.add_row(stage, role.name, _count(count), *(_bytes(part) for part in parts), _bytes(sum(parts)))
        table.add_row(stage, "all", "", "", "", "", f"[bold]{_bytes(total)}", end_section=True)
    return table


def _flops_table(cfg: RunConfig, shape: Geometry) -> Table:
    arguments = (_with_channels(cfg, shape), shape.clock, cfg.window, shape.grid)
    context, step = context_flops(*arguments), step_flops(*arguments)
    few, many = len(cfg.diffusion.few_steps), cfg.diffusion.teacher_steps
    table = Table("denoiser, one chunk of one stream", "steps", "FLOPs", "a second of video",
                  box=box.SIMPLE, title="Work of streaming (multiply-add = 2)", title_justify="left")
    for name, steps, branches in (("context, once", 1, 0), ("student", few, 1), ("teacher with guidance", many, 2)):
        flops = context + steps * branches * step
        table.add_row(name, str(steps) if branches else "", _count(flops) + "FLOP",
                      _count(flops / float(shape.clock.chunk_seconds)) + "FLOP")
    return table


def _plan_table(cfg: RunConfig, shape: Geometry) -> Table:
    clock, tokens = shape.clock, chunk_tokens(cfg.denoiser, shape.clock, cfg.window, shape.grid)
    table = Table("", "", box=box.SIMPLE, title="Chunk plan", title_justify="left", show_header=False)
    owned = [clock.audio_owned(k) for k in range(8)]
    rows = {
        "chunk": f"{clock.chunk_frames} frames at {clock.fps:g} fps = {float(clock.chunk_seconds):.4f} s",
        "video latents": f"{clock.video_latents} x {shape.video_channels} x {shape.grid} x {shape.grid}",
        "audio latents": f"{clock.audio_latents} x {shape.audio_channels} at {clock.audio_rate:g} Hz "
                         f"({float(clock.audio_per_chunk):.3f} a chunk; owned: {' '.join(map(str, owned))} ...)",
        "starts": " ".join(f"{float(clock.chunk_start(k)):.3f}" for k in range(5)) + " ... s",
        "tokens": ", ".join(f"{name} {count}" for name, count in tokens.items()) + f" = {sum(tokens.values())}",
        "denoised tokens": f"{tokens['video'] + tokens['audio']} a step",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _count(number: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 1000 or unit == "P":
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"
        number /= 1000
    raise AssertionError


def _bytes(number: float) -> str:
    if not number:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.4g} {unit}"
        number /= 1024
    raise AssertionError
