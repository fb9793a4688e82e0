"""Student and critic of the distillation stages: what they begin as, and how they are read from checkpoints.

The critic has the teacher's size and begins as the teacher, whatever the student's: it estimates the same kind of score
on the same conditions, and the two are subtracted; a smaller one would leave its own error in the student's gradient.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from callbacks.stored_weights import StoredRole, newest_role
from lightning_modules.config import MatchingStage
from pipelines.config.schema import RunConfig
from pipelines.origins import codec_differences, identity, load_teacher, misfits
from pipelines.resume import made_by
from pipelines.run_directory import RunDirectory
from streamchar.denoiser.adapter_config import AdapterConfig
from streamchar.denoiser.adapters import adapted, merged
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Denoiser
from streamchar.errors import CheckpointError, InputError
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.pretrained import Exported, load_weights


def load_role(cfg: RunConfig, spec: ModelSpec, directory: RunDirectory, stage: str, name: str, role: str = "ema"
              ) -> Denoiser:
    """Student or critic of a stage as a plain model on the CPU; adapters are merged into the teacher that they were
    trained on.

    spec: of that very model.
    """
    stored = newest_role(directory.input(stage, "checkpoints"), name, role)
    then, now = stored.made.get("init"), identity(cfg, directory, stage)
    if then != now:
        raise CheckpointError(f"{directory.stage(stage)} ({name}) was trained beside {_export(then)}, now there is "
                              f"{_export(now)} (init={cfg.init}): give the init= that it was trained with")
    model, origin = spec.build_denoiser(), f"{directory.stage(stage)} ({name})"
    if stored.adapters is None:
        load_weights(model, stored.weights, origin)
        return model
    teacher = load_teacher(cfg, spec, directory)
    load_weights(model, merged(_laid_on(cfg, teacher, stored, directory, stage, name)), origin)
    return model


def begin_roles(cfg: RunConfig, spec: ModelSpec, directory: RunDirectory, stage: str, first: str | None,
                teacher: Denoiser) -> tuple[Denoiser, Denoiser]:
    """Student and critic of ``stage``, as ``first`` left them, or else from the teacher.

    Raises:
        InputError: where they cannot begin so; adapters need adapters, or the teacher itself.
    """
    options: MatchingStage = getattr(cfg.stages, stage)
    if options.roles == "lora":
        return _adapters(cfg, options.lora, directory, first, teacher)
    if first:
        return (load_role(cfg, student_spec(cfg, spec), directory, first, "student"),
                load_role(cfg, spec, directory, first, "critic", "trained"))
    return first_student(cfg, spec, teacher), deepcopy(teacher)


def student_spec(cfg: RunConfig, spec: ModelSpec) -> ModelSpec:
    """``spec`` with the student's denoiser in the teacher's place."""
    return replace(spec, denoiser=cfg.student.of(spec.denoiser))


def first_student(cfg: RunConfig, spec: ModelSpec, teacher: Denoiser) -> Denoiser:
    """The student before its first update: its given weights, or the teacher's blocks, all or evenly spread ones."""
    own = student_spec(cfg, spec)
    if cfg.student.weights:
        return Exported(cfg.student.weights).denoiser()
    student = own.build_denoiser()
    student.load_state_dict(spread_blocks(teacher.state_dict(), spec.denoiser.layers, own.denoiser.layers))
    return student


def spread_blocks(weights: dict[str, Tensor], layers: int, kept: int) -> dict[str, Tensor]:
    """Weights of a denoiser of ``layers`` blocks with ``kept`` of them, evenly spread, first and last among them."""
    places = [round(i * (layers - 1) / max(kept - 1, 1)) for i in range(kept)]
    found = {name: value for name, value in weights.items() if not name.startswith("blocks.")}
    for new, old in enumerate(places):
        prefix = f"blocks.{old}."
        found |= {f"blocks.{new}.{name.removeprefix(prefix)}": value for name, value in weights.items()
                  if name.startswith(prefix)}
    return found


def check_size(folder: Path, wanted: DenoiserConfig) -> None:
    """Refuse an exported model of another architecture than the student's, by its config.json alone.

    Raises:
        InputError: naming the sizes that differ.
    """
    given = Exported(folder).spec.denoiser
    wrong = [f"{key}={value}, here {getattr(wanted, key)}" for key, value in vars(given).items()
             if value != getattr(wanted, key) and key != "residual_bf16"]
    if wrong:
        raise InputError(f"student.weights={folder} is of another size: {'; '.join(wrong)}. Layers and experts are set "
                         "with student.layers, student.ffn and student.audio_ffn; all else must be as the teacher's, "
                         "the width too, which is that of the one orchestrator's c_a")


def check_latents(cfg: RunConfig, directory: RunDirectory) -> None:
    """Refuse first weights of the student that know other latents than this run's: of other codecs, or on another grid.

    Raises:
        InputError: naming all that differs.
    """
    export = Exported(str(cfg.student.weights))
    wrong = codec_differences(export, directory) + misfits(cfg, export, {"codecs"})
    if wrong:
        raise InputError(f"student.weights={cfg.student.weights} was trained on other latents than this run's:\n  "
                         + "\n  ".join(wrong) + "\nTake a model that was trained on this run's (in its own run: "
                         f"data.latents={directory.stage('encode')}), or leave student.weights out")


def _adapters(cfg: RunConfig, options: AdapterConfig, directory: RunDirectory, first: str | None, teacher: Denoiser
              ) -> tuple[Denoiser, Denoiser]:
    if first is None:
        return adapted(teacher, options, "student"), adapted(teacher, options, "critic")
    roles = []
    for name, which in (("student", "ema"), ("critic", "trained")):
        stored = newest_role(directory.input(first, "checkpoints"), name, which)
        if stored.adapters is None:
            raise InputError(f"roles=lora begins with the adapters of stage {first}, but {directory.stage(first)} "
                             f"holds whole models; use roles=full, or train stage={first} with {first}.roles=lora")
        if AdapterConfig(**stored.adapters) != options:
            raise InputError(f"the adapters of {directory.stage(first)} have {stored.adapters}, this stage's lora is "
                             f"{vars(options)}: give both stages the same")
        roles.append(_laid_on(cfg, teacher, stored, directory, first, name))
    return roles[0], roles[1]


def _export(digest: str | None) -> str:
    return f"the export {digest}" if digest else "this run's own teacher"


@torch.no_grad()
def _laid_on(cfg: RunConfig, teacher: Denoiser, stored: StoredRole, directory: RunDirectory, stage: str, name: str
             ) -> Denoiser:
    """The teacher with a role's stored adapters.

    Raises:
        CheckpointError: where the adapters were trained on another teacher, or do not fit this one.
    """
    now = made_by(directory, "teacher") or identity(cfg, directory, stage)
    then = stored.made.get("teacher") or stored.made.get("init")
    if now != then:
        place = directory.stage("teacher") if directory.has("teacher", "checkpoints") else f"init={cfg.init}"
        raise CheckpointError(f"the adapters of {directory.stage(stage)} ({name}) were trained on another teacher "
                              f"({then}) than {place} holds now ({now}): train stage={stage} again, or put that "
                              "teacher back")
    model = adapted(teacher, AdapterConfig(**(stored.adapters or {})), name)
    own = model.state_dict(keep_vars=True)
    load_weights(model, {k: v.detach() for k, v in own.items() if ".lora_" not in k} | stored.weights,
                 f"{directory.stage(stage)} ({name})")
    return model
