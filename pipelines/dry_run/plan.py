"""Prints the plan of a run: memory per role and rank, work per iteration and chunk, the chunk grid."""

from __future__ import annotations

import torch
from rich import box
from rich.console import Console
from rich.table import Column, Table

from pipelines.config.geometry import Geometry, geometry
from pipelines.config.schema import TRAINING, RunConfig
from pipelines.dry_run.footprint import footprint
from pipelines.dry_run.memory import World, world
from pipelines.dry_run.roles import build_on_meta, with_channels
from pipelines.dry_run.work import iteration
from streamchar.denoiser.flops import chunk_tokens, context_flops, step_flops


def dry_run(cfg: RunConfig, console: Console) -> None:
    """Print sizes of every training stage (or of ``cfg.stage`` alone), work per iteration and chunk, the chunk plan."""
    shape, where = geometry(cfg), world(cfg)
    models = build_on_meta(cfg, shape)
    stages = [cfg.stage] if cfg.stage not in ("", "all") else [*TRAINING, "stream"]
    shared = f", a copy over {where.shard_ranks}" if where.shard_ranks != where.ranks else ""
    console.print(f"[bold]preset {cfg.preset}[/]: {where.ranks} rank{'s' if where.ranks > 1 else ''}, "
                  f"{where.sharding}{shared}, {cfg.trainer.precision}, activations {cfg.trainer.activations}")
    console.print(_memory_table(cfg, stages, models))
    if training := [stage for stage in stages if stage in TRAINING]:
        console.print(_work_table(cfg, shape, training, where))
    console.print(_flops_table(cfg, shape))
    console.print(_plan_table(cfg, shape))


def _memory_table(cfg: RunConfig, stages: list[str], models: dict[str, torch.nn.Module]) -> Table:
    table = Table("", *(Column(name, justify="right", no_wrap=True) for name in (
        "params", "weights", "grads", "optim", "copies", "kept")), box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False,
        title="Memory of one rank, GiB (peak: of the fullest moment)", title_justify="left")
    for stage in stages:
        found = footprint(cfg, stage, models)
        table.add_row(f"[bold]{stage}")
        for r in found.roles:
            count = sum(size for _, size, _ in r.role.parameters(models[r.role.model]))
            table.add_row(f"  {r.role.name}", _count(count), *(_gib(part) for part in (
                r.weights, r.gradients, r.optimizer, r.copies, r.activations)))
        table.add_row(f"  peak: {found.moment}", "", "", "", "", "", f"[bold]{_gib(found.peak)}", end_section=True)
    return table


def _work_table(cfg: RunConfig, shape: Geometry, stages: list[str], where: World) -> Table:
    table = Table("", "samples", "useful", "again", "no gradient", "useful share", box=box.SIMPLE,
                  padding=(0, 1, 0, 0), pad_edge=False,
                  title="Work of one iteration on one rank",
                  title_justify="left")
    for stage in stages:
        count = getattr(cfg.stages, stage).batch_size or cfg.data.batch_size
        work = iteration(cfg, shape, stage) * count
        whole = work.useful + work.again + work.frozen
        table.add_row(stage, f"{count} x {where.ranks}", *(_count(part) + "FLOP" if part else "-" for part in (
            work.useful, work.again, work.frozen)), f"{work.useful / whole:.0%}")
    return table


def _flops_table(cfg: RunConfig, shape: Geometry) -> Table:
    teacher, rest = with_channels(cfg, shape), (shape.clock, cfg.window, shape.grid)
    own = cfg.student.of(teacher)
    few, many = len(cfg.diffusion.few_steps), cfg.diffusion.teacher_steps
    table = Table("denoiser, one chunk of one stream", "steps", "FLOPs", "a second of video",
                  box=box.SIMPLE, title="Work of streaming (multiply-add = 2)", title_justify="left")
    for name, sizes, steps, branches in (("student's context, once", own, 0, 0), ("student", own, few, 1),
                                         ("teacher with guidance", teacher, many, 2)):
        flops = context_flops(sizes, *rest) + steps * branches * step_flops(sizes, *rest)
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


def _gib(number: float) -> str:
    """Three digits of GiB, which small models need too."""
    return f"{number / 2**30:.3g}" if number else "-"
