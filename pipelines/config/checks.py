"""What belongs together: rules across groups, all broken ones named at once."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from pipelines.config.errors import nearest
from pipelines.config.places import choices
from pipelines.config.schema import COMMANDS, STAGES, TRAINING, RunConfig
from streamchar.denoiser.wan_size import misfits
from streamchar.diffusion.config import DiffusionConfig
from streamchar.errors import InputError
from streamchar.objectives.drops import DropConfig


def cross_check(cfg: RunConfig, *, to_run: bool = True) -> list[str]:
    """Every rule that ``cfg`` breaks, in words: the groups' own rules, then those between groups.

    ``to_run``: also what a stage needs in order to run, but not to be printed or sized (``--cfg``, ``--dry-run``).
    """
    found = _own(cfg, "") + _run(cfg) + _window(cfg) + _sizes(cfg) + _guidance(cfg) + _deepspeed(cfg) + _roles(cfg)
    found += _validations(cfg)
    return found + (_files(cfg) if to_run and cfg.stage else [])


def _files(cfg: RunConfig) -> list[str]:
    """What is read from local files that only the user can give."""
    found = []
    if cfg.stage == "report":
        return [] if cfg.report.names() else ["stage=report needs runs=NAME,NAME, names of runs in root"]
    folder = cfg.orchestrator.pretrained
    if cfg.orchestrator.tokenizer == "pretrained" and not folder and not cfg.origin:
        found.append("orchestrator.tokenizer=pretrained needs orchestrator.pretrained=FOLDER, a Qwen2-family model")
    makes = cfg.stage == "prepare" or (cfg.stage == "all" and "prepare" in cfg.chain and cfg.data.shards is None)
    if makes and cfg.prepare.recipe != "puppet" and not cfg.intake.input:
        found.append(f"recipe={cfg.prepare.recipe} needs input=DIR, the folder of the recordings")
    if cfg.stage == "prepare" and cfg.prepare.recipe == "puppet" and cfg.intake.input:
        found.append(f"input={cfg.intake.input} is read with recipe=videos, grid or speech; the puppet is drawn")
    if cfg.init and cfg.denoiser.pretrained:
        found.append(f"init={cfg.init} and denoiser.pretrained={cfg.denoiser.pretrained} both give the denoiser's "
                     "first weights: leave one out (denoiser.pretrained=null)")
    if folder and not (Path(folder) / "config.json").is_file():
        found.append(f"orchestrator.pretrained={folder} holds no config.json: expected a Hugging Face model folder")
    if cfg.denoiser.pretrained:
        found += _wan(cfg)
    weights = cfg.student.weights
    if cfg.stage in ("dmd", "rollout") and weights and not (Path(weights) / "config.json").is_file():
        found.append(f"student.weights={weights} holds no config.json: expected an exported model (stage=export "
                     "out=DIR)")
    return found


def _wan(cfg: RunConfig) -> list[str]:
    """A Wan transformer that is not there or has other sizes."""
    folder = str(cfg.denoiser.pretrained)
    try:
        return misfits(replace(cfg.denoiser, video_channels=cfg.codec.video.layout()[0]), folder)
    except InputError as error:
        return [f"denoiser.pretrained: {error}"]


def _own(group: Any, path: str) -> list[str]:
    """What the groups say of themselves: ``problems()``, or ``problems(where)`` of groups that occur several times."""
    found: list[str] = []
    for field in fields(group):
        inner, where = getattr(group, field.name), f"{path}{field.name}"
        if not is_dataclass(inner):
            continue
        rules = getattr(inner, "problems", None)
        if callable(rules):
            found += rules(where) if signature(rules).parameters else rules()
        found += _own(inner, where + ".")
    return found


def _run(cfg: RunConfig) -> list[str]:
    found = []
    if cfg.stream.model and cfg.stage not in ("", "stream"):
        found.append(f"model={cfg.stream.model} is for stage=stream alone; stage={cfg.stage} works on its run's own")
    if cfg.stream.model and (cfg.stream.from_stage != "auto" or cfg.stream.role != "ema"):
        found.append("model= names an exported character, whose weights were chosen at its export: leave from= and "
                     "stream.role= out")
    known = (*STAGES, *COMMANDS)
    if cfg.stage and cfg.stage not in known:
        found.append(f"unknown stage={cfg.stage}{nearest(cfg.stage, known) or '; there are ' + ' '.join(known)}")
    for stage in cfg.chain:
        if stage not in STAGES:
            found.append(f"chain holds the unknown stage {stage}{nearest(stage, STAGES)}")
    if cfg.name and not re.fullmatch(r"[\w.+-]+", cfg.name) or cfg.name in (".", ".."):
        found.append(f"name={cfg.name!r} must be usable as a folder: letters, digits and . _ + - only")
    if cfg.debug is not None and cfg.debug not in choices("debug"):
        found.append(f"unknown debug={cfg.debug}; there are {', '.join(choices('debug'))}")
    return found


def _window(cfg: RunConfig) -> list[str]:
    latents = 1 + (cfg.clock.chunk_frames - 1) // 4
    window, found = cfg.window, []
    for key in ("sink_latents", "motion_latents"):
        value = getattr(window, key)
        if not 1 <= value <= latents:
            found.append(f"window.{key}={value} must be between 1 and the {latents} video latents "
                         f"of a chunk of clock.chunk_frames={cfg.clock.chunk_frames}")
    for key, most in (("past_audio_s", 0.5), ("anchor_s", 3.0), ("recent_s", 12.0)):
        value = getattr(window, key)
        if not 0 <= value <= most:
            found.append(f"window.{key}={value} must be between 0 and {most:g} seconds")
    return found


def _guidance(cfg: RunConfig) -> list[str]:
    """Training must show the null branch that sampling will lead away from (what stored weights have seen is checked
    where they are loaded)."""
    training = [s for s in cfg.chain if s in ("orchestrator", "teacher")] if cfg.stage == "all" else [cfg.stage]
    return [problem for stage in training if stage in ("orchestrator", "teacher")
            and (problem := unseen_null(cfg.diffusion, stage, getattr(cfg.stages, stage).drops))]


def _validations(cfg: RunConfig) -> list[str]:
    """The best checkpoint is judged at its own step, in a stage with validations of its own too."""
    saved, found = cfg.trainer.ckpt_every, []
    for stage in [s for s in TRAINING if cfg.stage in (s, "all")]:
        every = getattr(cfg.stages, stage).val_every
        if cfg.trainer.best and saved and every % saved:
            found.append(f"trainer.best needs checkpoints where validations are: stages.{stage}.val_every={every} must "
                         f"be a multiple of trainer.ckpt_every={saved}")
    return found


def _deepspeed(cfg: RunConfig) -> list[str]:
    """What DeepSpeed's engines cannot train; told before models are built."""
    if cfg.trainer.strategy != "deepspeed":
        return []
    found = []
    for stage in [s for s in TRAINING if cfg.stage in (s, "all")]:
        options = getattr(cfg.stages, stage)
        trained = {n: getattr(options, n) for n in ("optimizer", "generator", "critic") if hasattr(options, n)}
        if hasattr(options, "trajectory") and options.trajectory.steps:
            trained["trajectory.optimizer"] = options.trajectory.optimizer
        for name in [n for n, own in trained.items() if own.kind != "adamw"]:
            found.append(f"trainer.strategy=deepspeed trains with adamw: set stages.{stage}.{name}.kind=adamw (and a "
                         "learning rate for it), or use strategy=fsdp2 or ddp")
    return found


def _roles(cfg: RunConfig) -> list[str]:
    """Roles that are adapters, and a student of another size."""
    found, stages = cfg.student.misfits(cfg.denoiser), cfg.stages
    for stage in [s for s in ("dmd", "rollout") if cfg.stage in (s, "all", "")]:
        if getattr(stages, stage).roles != "lora":
            continue
        places = {"fsdp2": ("auto", "shard"), "deepspeed": ("auto", "replicate")}.get(cfg.trainer.strategy, ("auto",))
        if cfg.trainer.frozen not in places:
            found.append(f"stages.{stage}.roles=lora lays adapters on the teacher's weights, which must lie where the "
                         "roles' do (shared out by fsdp2, whole on every rank with deepspeed): leave "
                         f"trainer.frozen={cfg.trainer.frozen} out, or use stages.{stage}.roles=full")
        if cfg.student.resized(cfg.denoiser) or cfg.student.weights:
            found.append(f"stages.{stage}.roles=lora lays adapters on the teacher's own weights, but student.* asks "
                         f"for another student: use stages.{stage}.roles=full, or leave student.* out")
    if stages.rollout.roles == "lora" and "dmd" in cfg.chain and not cfg.init and cfg.stage in ("rollout", "all", ""):
        if stages.dmd.roles != "lora":
            found.append("stages.rollout.roles=lora goes on with the adapters of dmd, but stages.dmd.roles=full: give "
                         "both the same")
        elif stages.dmd.lora != stages.rollout.lora:
            found.append("stages.rollout.lora and stages.dmd.lora differ, but rollout goes on with the adapters of "
                         "dmd: give both the same")
    return found


def unseen_null(diffusion: DiffusionConfig, stage: str, drops: DropConfig) -> str:
    """What a stage's drops lack for guidance away from the null; empty where nothing is missing."""
    guided = diffusion.guidance_video != 1.0 or diffusion.guidance_audio != 1.0
    found = []
    if diffusion.needs_untold and not drops.text:
        found.append(("guidance_null=text" if diffusion.text_null
                      else f"few_step_guidance={diffusion.few_step_guidance:g}", "text"))
    if guided and not diffusion.text_null and stage == "teacher" and not drops.condition:
        found.append(("guidance_null=condition", "condition"))
    return "; ".join(f"diffusion.{by}: training must drop it sometimes, but stages.{stage}.drops.{missing} is 0 "
                     "(0.1 is usual)" for by, missing in found)


def _sizes(cfg: RunConfig) -> list[str]:
    found = []
    stride = _stride(cfg)
    pixels = stride * cfg.denoiser.patch
    if pixels > 0 and (cfg.data.size <= 0 or cfg.data.size % pixels):
        near = pixels * max(1, round(cfg.data.size / pixels))
        found.append(f"data.size={cfg.data.size} must be a multiple of {pixels} pixels (a token: the codec's stride "
                     f"{stride} x denoiser.patch={cfg.denoiser.patch}), for example {near}")
    given = any(v is not None for v in (cfg.data.shards, cfg.data.latents, cfg.data.mix))
    uses_puppet = not given and cfg.prepare.recipe == "puppet" and (
        cfg.stage in ("prepare", "encode") or (cfg.stage == "all" and "prepare" in cfg.chain))
    if uses_puppet and cfg.prepare.fps != cfg.clock.fps:
        found.append(f"prepare.fps={cfg.prepare.fps:g} and clock.fps={cfg.clock.fps:g} must be equal, "
                     f"unless data.shards gives other clips")
    if cfg.stage == "all" and not given and "encode" in cfg.chain and "prepare" not in cfg.chain:
        found.append(f"preset={cfg.preset} makes no data of its own: give data.shards=FOLDER")
    return found


def _stride(cfg: RunConfig) -> int:
    """Pixels per latent; 0 where the codec's folder does not say, which is told as the codec's own problem."""
    try:
        return cfg.codec.video.layout()[1]
    except InputError:
        return 0
