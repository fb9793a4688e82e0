"""Where the models that a stage builds on come from: this run's own stages, or the exported character of ``init=``.

One rule: what this run has trained itself goes on from there; what it has not is the export's. A teacher and the
orchestrator that it was trained with stay together: both are this run's, or both the export's.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, replace
from typing import Any

from callbacks.stored_weights import newest_weights
from pipelines.config.schema import TRAINING, RunConfig
from pipelines.run_directory import RunDirectory
from pipelines.shipped import model_folder
from streamchar.denoiser.model import Denoiser
from streamchar.errors import InputError
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.pretrained import Exported, load_weights
from streamchar.hub.wan import load_wan
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.orchestrator.model import Orchestrator

log = logging.getLogger(__name__)

_BUILT_ON = ("dmd", "rollout", "evaluate", "stream", "export")
"""Stages that need a trained teacher and its orchestrator."""
_NOT_SIZES = {"denoiser": ("pretrained", "residual_bf16", "video_channels", "audio_channels"),
              "orchestrator": ("pretrained", "pointer_rate", "stall_chunks")}
"""Settings that weights do not depend on, or (channels) that the codecs tell."""
_PICTURES = ("sink_latents", "motion_latents", "past_audio_s")
"""Of the window, what the denoiser alone sees."""


def init_export(cfg: RunConfig) -> Exported | None:
    """The exported character of ``init=``, or else of ``init_speech=``.

    Raises:
        InputError: where it is none.
    """
    return Exported(model_folder(cfg.origin, "init" if cfg.init else "init_speech")) if cfg.origin else None


def taken(cfg: RunConfig, directory: RunDirectory, stage: str) -> tuple[str, ...]:
    """What ``stage`` takes from the export: some of ``codecs`` or ``audio_codec``, ``orchestrator``, ``denoiser``."""
    def own(earlier: str) -> bool:  # stage=all: has trained, or will have
        return directory.has(earlier, "checkpoints") or (cfg.stage == "all" and earlier in cfg.chain)

    if not cfg.origin:
        return ()
    if stage == "encode":
        return () if cfg.data.latents else ("codecs",) if cfg.init else ("audio_codec",)
    if stage == "orchestrator":
        return ("orchestrator",)
    if not cfg.init:  # a chain may do without an orchestrator stage
        lacks = "orchestrator" not in cfg.chain and not directory.has("orchestrator", "checkpoints")
        return ("orchestrator",) if lacks and stage in ("teacher", *_BUILT_ON) else ()
    if stage == "teacher":
        return ("denoiser",) if own("orchestrator") else ("orchestrator", "denoiser")
    if stage not in _BUILT_ON:
        return ()
    if not own("teacher"):
        return ("orchestrator", "denoiser")
    return () if _teacher_trains_both(cfg) or own("orchestrator") else ("orchestrator",)


def before(cfg: RunConfig, directory: RunDirectory, stage: str) -> str | None:
    """The distillation of this run that ``stage`` goes on from; one of the chain may be missing beside an export."""
    expected = "dmd" in cfg.chain and "denoiser" not in taken(cfg, directory, stage)
    return "dmd" if stage == "rollout" and (expected or directory.has("dmd", "checkpoints")) else None


def identity(cfg: RunConfig, directory: RunDirectory, stage: str) -> str | None:
    """What ``stage`` takes from the export, in a few letters; None where that is nothing."""
    parts, export = taken(cfg, directory, stage), init_export(cfg)
    if not parts or export is None:
        return None
    if parts in (("codecs",), ("audio_codec",)):
        return _hash(codec_prints(export, codec_kinds(cfg)))
    return export.digest() if cfg.init else _hash(["speech", export.digest()])


def codec_kinds(cfg: RunConfig) -> tuple[str, ...]:
    """Which of the export's codecs the run has."""
    return ("video", "audio") if cfg.init else ("audio",)


def codec_prints(export: Exported, kinds: tuple[str, ...] = ("video", "audio")) -> dict[str, str]:
    """Fingerprints of the export's codecs by kind."""
    return {kind: str(export.codecs[f"{kind}_codec"]["fingerprint"]) for kind in kinds}


def orchestrator_plan(cfg: RunConfig) -> OrchestratorConfig:
    """The run's, with the language model that the export carries where the run names none."""
    export = init_export(cfg)
    if export is None or cfg.orchestrator.pretrained:
        return cfg.orchestrator
    return replace(cfg.orchestrator, pretrained=export.spec.orchestrator.pretrained)


def load_orchestrator(cfg: RunConfig, spec: ModelSpec, directory: RunDirectory, stage: str) -> Orchestrator:
    """The orchestrator with which ``stage`` begins: an earlier stage's, the export's, or (where the chain has none) one
    with fresh weights or a local language model's.
    """
    export = init_export(cfg)
    if export is not None and "orchestrator" in taken(cfg, directory, stage):
        return _filled(spec.build_orchestrator(load_llm=False), export, "orchestrator")
    if stage == "orchestrator":
        return spec.build_orchestrator()
    if stage == "teacher":
        trained = "orchestrator" in cfg.chain or directory.has("orchestrator", "checkpoints")
        return stored_orchestrator(spec, directory, "orchestrator") if trained else spec.build_orchestrator()
    return stored_orchestrator(spec, directory, "teacher" if _teacher_trains_both(cfg) else "orchestrator")


def stored_orchestrator(spec: ModelSpec, directory: RunDirectory, stage: str) -> Orchestrator:
    """The orchestrator of a stage's newest checkpoint."""
    weights = newest_weights(directory.input(stage, "checkpoints"), "orchestrator")
    model = spec.build_orchestrator(load_llm=False)
    load_weights(model, weights, f"{directory.stage(stage)} (orchestrator)")
    return model


def first_denoiser(cfg: RunConfig, spec: ModelSpec, directory: RunDirectory) -> Denoiser:
    """The denoiser with which the teacher's training begins: the export's, a local Wan transformer's, or fresh."""
    denoiser = spec.build_denoiser()
    export = init_export(cfg)
    if export is not None and "denoiser" in taken(cfg, directory, "teacher"):
        return _filled(denoiser, export, "denoiser")
    if spec.denoiser.pretrained:
        load_wan(denoiser, spec.denoiser.pretrained)
    return denoiser


def load_teacher(cfg: RunConfig, spec: ModelSpec, directory: RunDirectory, role: str = "ema") -> Denoiser:
    """The trained teacher, of this run or of the export. role: ``ema`` or ``trained`` (an export has but one)."""
    model, export = spec.build_denoiser(), init_export(cfg)
    if export is not None and "denoiser" in taken(cfg, directory, "dmd"):
        return _filled(model, export, "denoiser")
    weights = newest_weights(directory.input("teacher", "checkpoints"), "teacher", role)
    load_weights(model, weights, f"{directory.stage('teacher')} (teacher)")
    return model


def check_init(cfg: RunConfig, directory: RunDirectory) -> None:
    """Refuse an export that does not fit this run, before anything heavy starts.

    Raises:
        InputError: naming all that does not fit, in the export and here, and what to do.
    """
    stages = cfg.chain if cfg.stage == "all" else [cfg.stage]
    parts = {part for stage in stages for part in taken(cfg, directory, stage)}
    export = init_export(cfg) if parts else None
    if export is None:
        if cfg.stage in TRAINING:
            log.info("%s is not read: stage=%s goes on from models of this run", _given(cfg), cfg.stage)
        return
    judged = stages == ["evaluate"]  # as it is, distilled or not
    found = [] if "denoiser" not in parts else ([] if judged else _distilled(cfg, export)) + _null(cfg, export, stages)
    found += _untold(cfg, export) if parts == {"orchestrator"} and "orchestrator" not in stages else []
    found += misfits(cfg, export, parts)
    if found:
        raise InputError(f"{_given(cfg)} does not fit this run:\n  " + "\n  ".join(found))
    if "encode" not in stages:
        check_codecs(cfg, export, directory)


def check_codecs(cfg: RunConfig, export: Exported, directory: RunDirectory) -> None:
    """Refuse an export whose codecs are not those of this run's latents.

    Raises:
        InputError: naming both.
    """
    if found := codec_differences(export, directory, codec_kinds(cfg)):
        raise InputError(f"{_given(cfg)} has other codecs than the latents of this run: {'; '.join(found)}. Encode "
                         f"with the export's: stage=encode {_given(cfg)} (under another name= where these latents "
                         "are still needed), or give data.latents= of a run that has them")


def codec_differences(export: Exported, directory: RunDirectory, kinds: tuple[str, ...] = ("video", "audio")
                      ) -> list[str]:
    """Codecs of the export that are not those of this run's latents, in words."""
    folder, found = directory.input("encode", "codecs"), []
    for kind, wanted in codec_prints(export, kinds).items():
        own = json.loads((folder / kind / "config.json").read_text())
        if own["fingerprint"] != wanted:
            found.append(f"{kind}: {export.codecs[f'{kind}_codec']['kind']} {wanted[:12]} in the export, {own['kind']} "
                         f"{str(own['fingerprint'])[:12]} here ({folder / kind})")
    return found


def _given(cfg: RunConfig) -> str:
    return f"init={cfg.init}" if cfg.init else f"init_speech={cfg.init_speech}"


def _filled(model: Any, export: Exported, part: str) -> Any:
    load_weights(model, export.weights(part), str(export.folder))
    log.info("%s of %s (%s)", part, export.folder, export.digest())
    return model


def _teacher_trains_both(cfg: RunConfig) -> bool:
    return cfg.stages.teacher.orchestrator_lr_scale > 0


def _distilled(cfg: RunConfig, export: Exported) -> list[str]:
    if not export.few_step:
        return []
    run, stage = export.spec.extra.get("run", "RUN"), export.spec.extra.get("stage", "?")
    return [f"it is a distilled model (stage {stage} of the run {run}), from which neither teacher nor dmd or rollout "
            f"can start: export the undistilled one with stage=export name={run} from=teacher out=FOLDER and give "
            f"init=FOLDER; this one can be the student beside it, student.weights={cfg.init}"]


def _null(cfg: RunConfig, export: Exported, stages: list[str]) -> list[str]:
    """Distillation leads the teacher away from a null, which must be the one that it was trained for."""
    here, there = cfg.diffusion, export.spec.diffusion
    guided = here.guidance_video != 1.0 or here.guidance_audio != 1.0
    if "teacher" in stages:
        return []
    if not export.few_step and (untold := _untold(cfg, export)):
        return untold
    if not guided or here.guidance_null == there.guidance_null:
        return []
    return [f"diffusion.guidance_null={there.guidance_null} in the export, {here.guidance_null} here: it was trained "
            "for the former"]


def _untold(cfg: RunConfig, export: Exported) -> list[str]:
    """Guidance away from what an orchestrator makes of no text, where it never had none."""
    weight = cfg.diffusion.few_step_guidance
    if weight == 1.0 or export.spec.diffusion.needs_untold:
        return []
    return [f"diffusion.few_step_guidance={weight:g} leads away from c_a without text, which the export never learnt "
            "(its guidance_null is condition): set diffusion.few_step_guidance=1"]


def misfits(cfg: RunConfig, export: Exported, parts: set[str]) -> list[str]:
    """Settings of the run that the export's models do not have."""
    there, pictures = export.spec.to_dict(), bool(cfg.init or parts & {"codecs", "denoiser"})
    keys = [("clock.fps", ""), ("clock.chunk_frames", "")] + [("data.size", "size")] * pictures
    if parts & {"orchestrator", "denoiser"}:
        keys += [(f"window.{key}", "") for key in there["window"] if pictures or key not in _PICTURES]
        keys += [("denoiser.width", "")]
    if "orchestrator" in parts:
        lm = cfg.orchestrator.pretrained or export.spec.orchestrator.pretrained  # which has sizes of its own
        skipped = ("vocabulary", "width", "layers", "heads", "kv_heads", "ffn", "rope_theta") if lm else ()
        keys += [(f"orchestrator.{key}", "") for key in there["orchestrator"]
                 if key not in (*_NOT_SIZES["orchestrator"], *skipped)]
    if "denoiser" in parts:
        keys += [(f"denoiser.{key}", "") for key in there["denoiser"]
                 if key not in (*_NOT_SIZES["denoiser"], "width")]
    here = asdict(cfg)
    pairs = [(key, _at(there, other or key), _at(here, key)) for key, other in keys]
    return [f"{key}={theirs} in the export, {ours} here: set {key}={theirs}" for key, theirs, ours in pairs
            if theirs != ours]


def _at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
