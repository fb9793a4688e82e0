"""The whole configuration: every room's own options, composed. Free of torch, so that help and errors come at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from callbacks.config import CallbackConfig
from datamodules.config import DataConfig
from datamodules.intake.config import IntakeConfig
from datamodules.puppet.config import PrepareConfig
from lightning_modules.config import DmdStage, OrchestratorStage, RolloutStage, TeacherStage
from pipelines.trainer_config import TrainerConfig
from streamchar.clock import ChunkClock
from streamchar.codecs.config import CodecConfig
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.student_config import StudentConfig
from streamchar.diffusion.config import DiffusionConfig
from streamchar.evaluation.config import EvaluateConfig
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.streaming.config import StreamConfig
from streamchar.window import WindowConfig

STAGES = ("prepare", "encode", "orchestrator", "teacher", "dmd", "rollout", "evaluate", "stream", "export",
          "inspect")
"""Stages in the order in which each uses the former ones' results."""
COMMANDS = ("all", "sync-tracking", "report")
"""What ``stage=`` takes besides: the whole chain, and what is no part of one run's folder."""
TRAINING = ("orchestrator", "teacher", "dmd", "rollout")
"""Stages that train a model."""


@dataclass
class ClockConfig:
    """The chunk grid in pictures; the sound's rates are the audio codec's."""

    fps: float = 24.0
    """Video frames per second."""
    chunk_frames: int = 33
    """Frames of one chunk, 1 + 4 n."""

    def chunk_clock(self, audio_rate: float, sample_rate: int) -> ChunkClock:
        """The clock of a run, given the audio codec's latents per second and samples per second."""
        return ChunkClock(self.fps, self.chunk_frames, audio_rate, sample_rate)

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.fps <= 0:
            found.append(f"clock.fps={self.fps} must be positive")
        if self.chunk_frames < 1 or (self.chunk_frames - 1) % 4:
            near = 1 + 4 * max(0, (self.chunk_frames - 1) // 4)
            found.append(f"clock.chunk_frames={self.chunk_frames} must be 1 + 4 n, for example {near} or {near + 4}")
        return found


@dataclass
class StagesConfig:
    """The training stages' own options; ``dmd.steps=100`` on the command line is short for ``stages.dmd.steps=100``."""

    orchestrator: OrchestratorStage = field(default_factory=OrchestratorStage)
    """The orchestrator on speech alone."""
    teacher: TeacherStage = field(default_factory=TeacherStage)
    """The joint audio-video teacher."""
    dmd: DmdStage = field(default_factory=DmdStage)
    """Stage I: distillation on single chunks."""
    rollout: RolloutStage = field(default_factory=RolloutStage)
    """Stage II: distillation on the student's own chunks."""


@dataclass
class ExportConfig:
    """What ``stage=export from=STAGE out=DIR`` writes."""

    from_stage: str = "auto"
    """Stage whose weights are written: teacher, dmd or rollout; auto = the last that was trained."""
    role: str = "ema"
    """Which weights of that stage: ema, student or teacher."""
    out: str | None = None
    """Folder of model.safetensors and config.json. Not given: ``export/`` of the run."""
    dtype: str = "float32"
    """Type of the stored weights: float32, bfloat16, float16 or int8 (eight bits by rows); loaded as float32."""
    prompt: bool = False
    """Whether the run's own prompt, a picture and a voice of the data, goes along: whose likeness is it?"""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        kinds = ("float32", "bfloat16", "float16", "int8")  # stored_types.KINDS, without loading torch
        return [] if self.dtype in kinds else [f"export.dtype={self.dtype!r} must be one of {', '.join(kinds)}"]


@dataclass
class InspectConfig:
    """What ``stage=inspect`` shows of the encoded data."""

    items: int = 12
    """Items on the page."""
    first: int = 0
    """Position in the sample order of the first one; the order is random already."""
    split: str = "train"
    """Which latents: train or val."""
    speech: bool = False
    """Items as the orchestrator's stage meets them: sound and text, clips without pictures too."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = [] if self.split in ("train", "val") else [f"inspect.split={self.split!r} must be 'train' or 'val'"]
        return found + [f"inspect.{name}={getattr(self, name)} must be at least {least}"
                        for name, least in (("items", 1), ("first", 0)) if getattr(self, name) < least]


MOST_RUNS = 8
"""Runs that one page can tell apart by colour."""


@dataclass
class ReportConfig:
    """What ``stage=report runs=a,b,c`` compares."""

    runs: str = ""
    """Names of runs in ``root``, separated by commas (written ``runs=``); the first is what others stand beside."""
    out: str | None = None
    """The page, one HTML file. Not given: ``root/report.html``."""
    embed_mb: float = 12.0
    """Megabytes of videos and pictures that are put into the page, clip by clip; what does not fit is linked by its
    path from the page, and the page says so. 0: all are linked."""

    def names(self) -> list[str]:
        """The runs' names, each once."""
        return list(dict.fromkeys(part.strip() for part in self.runs.split(",") if part.strip()))

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = [] if self.embed_mb >= 0 else [f"report.embed_mb={self.embed_mb} must not be negative"]
        if len(self.names()) > MOST_RUNS:
            found.append(f"runs={self.runs} names {len(self.names())} runs, but a page tells {MOST_RUNS} apart by "
                         "their colours: leave some out")
        return found


@dataclass
class RunConfig:
    """Everything that a run is made of."""

    stage: str = ""
    """What to do: one of the stages, ``all`` for the chain that the preset needs, ``sync-tracking`` to send MLflow
    what it has not got yet, or ``report`` to compare runs."""
    preset: str = "demo"
    """A file of conf/preset/. Not given: the preset with which the run of this name was made, else demo."""
    name: str = ""
    """Name of the run, which alone decides its folder: root/NAME/STAGE. Not given: the preset's name."""
    root: str = "runs"
    """Folder of all runs."""
    seed: int = 0
    """Seed of weights, sample order and noise."""
    init: str | None = None
    """An exported character (the name of a shipped one, or a folder: ``./NAME`` where one that ships has its name) that
    stands for the stages this run has not run: what the run has trained itself goes on from there, else orchestrator
    and denoiser are the export's. So orchestrator and
    teacher begin as it; dmd and rollout distil it (undistilled, then) where the run has no teacher, and rollout goes on
    from the run's dmd where there is one; encode takes its codecs. stage=all: every stage of chain= runs. The run
    remembers it; init=null forgets it."""
    init_speech: str | None = None
    """An exported character of which a run takes over how it speaks, not how it looks: encode its sound codec,
    orchestrator its orchestrator; the video codec is fitted, the teacher begins afresh. Not read beside ``init``."""
    debug: str | None = None
    """A file of conf/debug/ laid over the preset: fast."""
    chain: list[str] = field(default_factory=lambda: [s for s in STAGES if s not in ("export", "inspect")])
    """Stages of ``stage=all``, in order; those that are complete already are skipped."""
    clock: ClockConfig = field(default_factory=ClockConfig)
    """The chunk grid."""
    window: WindowConfig = field(default_factory=WindowConfig)
    """How much context one chunk sees."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """The data set that is made: the embedded puppet, unless ``recipe=`` says otherwise."""
    intake: IntakeConfig = field(default_factory=IntakeConfig)
    """Recordings made into shards: ``recipe=videos``, ``grid`` or ``speech``."""
    data: DataConfig = field(default_factory=DataConfig)
    """Shards and the composition of items."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    """Pictures and sound to latents and back."""
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    """The joint audio-video transformer."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """Size of the student, where it differs from the teacher's."""
    orchestrator: OrchestratorConfig = field(default_factory=OrchestratorConfig)
    """The language model and its pointer."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """Noise levels, steps, guidance."""
    stages: StagesConfig = field(default_factory=StagesConfig)
    """The training stages."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How long, on what and how often; the same for every training stage."""
    callbacks: CallbackConfig = field(default_factory=CallbackConfig)
    """What watches a training stage: tracking, samples, probes, averages."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Held-out measures."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    """The streamed clip."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """The exported model."""
    inspect: InspectConfig = field(default_factory=InspectConfig)
    """The page of training items."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The page that compares runs."""

    @property
    def origin(self) -> str | None:
        """The exported character that the run begins from, or from whose speech."""
        return self.init or self.init_speech
