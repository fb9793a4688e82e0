"""Builds what stages run: model sizes from the codecs, modules with their inputs, characters to stream.

A stage finds its inputs by the run's name; a missing one is told before anything heavy starts.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from datamodules.latent_shards import LatentStore
from lightning_modules.dmd_module import DmdModule
from lightning_modules.orchestrator_module import OrchestratorModule
from lightning_modules.rollout_module import RolloutModule
from lightning_modules.stage_module import StageModule
from lightning_modules.teacher_module import TeacherModule
from pipelines.config.schema import RunConfig
from pipelines.evaluating.mouths import choose_mouth
from pipelines.origins import (
    before,
    first_denoiser,
    init_export,
    load_orchestrator,
    load_teacher,
    orchestrator_plan,
    stored_orchestrator,
)
from pipelines.roles import begin_roles, check_latents, check_size, load_role, student_spec
from pipelines.run_directory import RunDirectory
from pipelines.trained_null import check_null
from pipelines.trained_sampling import trained_sampling
from streamchar.codecs.store import Codecs, load_codec
from streamchar.errors import InputError
from streamchar.evaluation.mouth import MouthDetector
from streamchar.evaluation.speech_only import SpeechOnlyDenoiser
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.pretrained import Exported
from streamchar.rollout.character import Character

log = logging.getLogger(__name__)

MODEL_STAGES = ("teacher", "dmd", "rollout")


def load_codecs(directory: RunDirectory) -> Codecs:
    """The run's codecs, made by stage=encode."""
    return Codecs(load_codec(directory.input("encode", "codecs/video")),
                  load_codec(directory.input("encode", "codecs/audio")))


def model_spec(cfg: RunConfig, codecs: Codecs) -> ModelSpec:
    """Sizes of the run's models: the configuration's, with channels and rates of its codecs."""
    clock = cfg.clock.chunk_clock(codecs.audio.latent_rate, codecs.audio.sample_rate)
    denoiser = replace(cfg.denoiser, video_channels=codecs.video.channels, audio_channels=codecs.audio.channels)
    grid = cfg.data.size // codecs.video.spatial_stride
    if grid % denoiser.patch:
        raise InputError(f"denoiser.patch={denoiser.patch} does not divide the latent grid of {grid} x {grid} "
                         f"(data.size={cfg.data.size} at stride {codecs.video.spatial_stride})")
    return ModelSpec(denoiser, orchestrator_plan(cfg), clock, cfg.window, cfg.diffusion, cfg.data.size)


def build_module(stage: str, cfg: RunConfig, directory: RunDirectory) -> StageModule:
    """The LightningModule of a training stage, started from the stages before it (``pipelines/origins.py``).

    dmd: student and critic start as the teacher, or the student of its own size (``pipelines/roles.py``). rollout:
    student and critic start from dmd (or as dmd's do).
    """
    codecs = load_codecs(directory)
    spec = model_spec(cfg, codecs)
    torch.manual_seed(cfg.seed)
    folder = directory.stage(stage)
    if stage == "orchestrator":
        return OrchestratorModule(load_orchestrator(cfg, spec, directory, stage), cfg.stages.orchestrator,
                                  cfg.diffusion, cfg.seed, folder)
    if stage == "teacher":
        orchestrator = load_orchestrator(cfg, spec, directory, stage)
        denoiser = first_denoiser(cfg, spec, directory)
        character = Character(denoiser, orchestrator, spec.clock, spec.window, spec.units(), spec.diffusion, spec.size,
                              codecs.video, codecs.audio)
        return TeacherModule(character, cfg.stages.teacher, cfg.seed, folder)
    check_null(cfg, directory, ("orchestrator", "teacher"))
    if cfg.student.weights:
        check_latents(cfg, directory)
        check_size(Path(cfg.student.weights), student_spec(cfg, spec).denoiser)
    teacher = load_teacher(cfg, spec, directory)
    orchestrator = load_orchestrator(cfg, spec, directory, stage)
    student, critic = begin_roles(cfg, spec, directory, stage, before(cfg, directory, stage), teacher)
    character = Character(student, orchestrator.eval(), spec.clock, spec.window, spec.units(), spec.diffusion,
                          spec.size, codecs.video, codecs.audio, few_step=True)
    kind = DmdModule if stage == "dmd" else RolloutModule
    return kind(character, teacher, critic, getattr(cfg.stages, stage), cfg.seed, folder,
                _mouth(cfg, codecs, spec, directory))


def _mouth(cfg: RunConfig, codecs: Codecs, spec: ModelSpec, directory: RunDirectory) -> MouthDetector | None:
    """The detector that fits the training clips, for the held-out scores of a student."""
    train = LatentStore(directory.input("encode", "latents/train"), spec.clock,
                        {"video": codecs.video.fingerprint, "audio": codecs.audio.fingerprint})
    mouth = choose_mouth(cfg.evaluate, train, [], codecs.video)
    return mouth.detector if mouth is not None else None


def alone(cfg: RunConfig, directory: RunDirectory, from_stage: str = "auto") -> Exported | None:
    """The export of ``init=``, where it is itself the model that is meant: nothing in the run was trained on it."""
    trained = any(directory.has(stage, "checkpoints") for stage in MODEL_STAGES)
    return init_export(cfg) if cfg.init and from_stage == "auto" and not trained else None


def trained_stage(directory: RunDirectory, from_stage: str = "auto") -> str:
    """The stage whose model is meant: ``auto`` is the last that has a checkpoint.

    Raises:
        InputError: where there is none, or the named one has none.
    """
    if from_stage != "auto":
        if from_stage not in MODEL_STAGES:
            raise InputError(f"no model comes from stage {from_stage!r}; choose one of {', '.join(MODEL_STAGES)}, auto")
        directory.input(from_stage, "checkpoints")
        return from_stage
    for stage in reversed(MODEL_STAGES):
        if directory.has(stage, "checkpoints"):
            return stage
    directory.input("teacher", "checkpoints")
    raise AssertionError("unreachable")


def load_character(directory: RunDirectory, cfg: RunConfig, from_stage: str = "auto", role: str = "ema") -> Character:
    """The character that a stage made, or of ``init=`` where there is no such stage, on the device that is there, in
    eval mode.

    role: ``ema`` (averaged), ``student`` (the plain weights) or ``teacher`` (the undistilled model).
    """
    export = alone(cfg, directory, from_stage)
    stage = "teacher" if export is not None else trained_stage(directory, from_stage)
    codecs = load_codecs(directory)
    spec = model_spec(cfg, codecs)
    few_step = (stage != "teacher" if export is None else export.few_step) and role != "teacher"
    which = "trained" if role == "student" else "ema"
    if export is not None and export.few_step and role == "teacher":
        raise InputError(f"init={cfg.init} is a distilled model: there is no teacher in it")
    if few_step:
        spec = replace(spec, diffusion=trained_sampling(spec.diffusion, directory, stage, export))
    if not few_step or spec.diffusion.few_step_guidance != 1.0:
        check_null(cfg, directory, ("orchestrator", "teacher"))
    denoiser = (load_teacher(cfg, spec, directory, which) if export is not None or not few_step
                else load_role(cfg, student_spec(cfg, spec), directory, stage, "student", which))
    orchestrator = load_orchestrator(cfg, spec, directory, stage="export")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for model in (denoiser, orchestrator):
        model.to(device).eval().requires_grad_(False)
    log.info("model of %s (%s, %s)", directory.stage(stage) if export is None else export.folder, role,
             "few-step" if few_step else "Euler")
    return Character(denoiser, orchestrator, spec.clock, spec.window, spec.units(), spec.diffusion, spec.size,
                     codecs.video, codecs.audio, few_step)


def load_speech(directory: RunDirectory, cfg: RunConfig) -> Character:
    """A character without a denoiser: the orchestrator speaks by its own head, guided only away from no text."""
    if cfg.diffusion.text_null:
        check_null(cfg, directory, ("orchestrator",))
    codecs = load_codecs(directory)
    spec = model_spec(cfg, codecs)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    orchestrator = stored_orchestrator(spec, directory, "orchestrator").to(device).eval().requires_grad_(False)
    weight = spec.diffusion.guidance_audio if spec.diffusion.text_null else 1.0
    guided = replace(spec.diffusion, guidance_video=1.0, guidance_audio=weight)
    return Character(SpeechOnlyDenoiser(orchestrator, spec.denoiser), orchestrator, spec.clock, spec.window,
                     spec.units(), guided, spec.size, codecs.video, codecs.audio)


def checkpoint_folder(directory: RunDirectory, stage: str) -> Path:
    """Where a stage keeps its checkpoints."""
    return directory.stage(stage) / "checkpoints"
