"""Iterations per second of training, and which share of the device's matmul peak they reach.

    python benchmarks/train_step.py                          # the tiny preset on a CPU, 1.3B on a GPU
    python benchmarks/train_step.py --step teacher --batch 4 --compile --profile

Models of the preset's size with random weights learn on random latents, so that torch and transformers are all it
needs. A teacher step is the joint objective without the pointer's pass (denoiser and orchestrator learn); a dmd step
updates student and critic, as each fifth iteration does, ``critic`` the critic alone, as the others do; ``rollout``
updates both after fresh streams were rolled two chunks on (as many as Stage II begins with). Useful FLOPs are counted
by torch on the step of one sample without recomputed activations (forward and backward, multiply-add = 2), times the
batch. The peak is that of a large matrix product of the same type in the same process. On a GPU one more step is made
with every host synchronisation forbidden; the first is told with its place, and is a failure unless ``--allow-sync``.
"""

from __future__ import annotations

import argparse
import gc
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from streamchar.clock import ChunkClock  # noqa: E402
from streamchar.denoiser.config import DenoiserConfig  # noqa: E402
from streamchar.denoiser.model import Denoiser  # noqa: E402
from streamchar.diffusion.config import DiffusionConfig  # noqa: E402
from streamchar.diffusion.noise import NoiseKey  # noqa: E402
from streamchar.distributed.activations import checkpoint_activations  # noqa: E402
from streamchar.distributed.compiling import compile_parts  # noqa: E402
from streamchar.hub.model_spec import ModelSpec  # noqa: E402
from streamchar.hub.random_batches import CountedUnits, random_chunks, random_streams  # noqa: E402
from streamchar.nn import attention  # noqa: E402
from streamchar.objectives.distribution_matching import critic_losses, generator_losses, renoise  # noqa: E402
from streamchar.objectives.drops import DropConfig  # noqa: E402
from streamchar.objectives.joint import joint_losses  # noqa: E402
from streamchar.orchestrator.config import OrchestratorConfig  # noqa: E402
from streamchar.orchestrator.model import Prefix  # noqa: E402
from streamchar.rollout.character import Character  # noqa: E402
from streamchar.rollout.chunk_loop import generate_chunk  # noqa: E402
from streamchar.rollout.denoise import denoise_chunk  # noqa: E402
from streamchar.rollout.plan import student_plan  # noqa: E402
from streamchar.types import ChunkBatch, Conditions, Latents  # noqa: E402
from streamchar.window import WindowConfig  # noqa: E402

PRESETS = {
    "tiny": (ModelSpec(
        DenoiserConfig(16, 64, patch=3, width=64, layers=2, heads=2, ffn=128, audio_ffn=128, frame_condition=True,
                       residual_bf16=True),
        OrchestratorConfig(width=64, layers=2, heads=2, kv_heads=2, ffn=128, pointer_dim=32),
        ChunkClock(25, 17, 25, 16000), WindowConfig(2, 3, 0.16, 0.4, 0.8, 4, 6),
        DiffusionConfig(3.0, True, 6, few_step_shift=3.0, score_shift=3.0, guidance_video=1.5, guidance_audio=2.0),
        48), 6),
    "1b": (ModelSpec(
        DenoiserConfig(48, 128, patch=2, width=1536, layers=30, heads=12, ffn=8960, audio_ffn=2048, caption_bias=True),
        OrchestratorConfig(tokenizer="pretrained", width=896, layers=24, heads=14, kv_heads=2, ffn=4864,
                           rope_theta=1e6, positions="index", pointer_dim=256, pointer_rate=12.0),
        ChunkClock(24, 33, 25, 16000), WindowConfig(3, 9, 0.0, 3.0, 12.0, 96, 160), DiffusionConfig(), 256), 32)}
"""Sizes as in ``conf/preset/`` with the channels of the codecs, and the side of the latent grid."""

EXIT_STEP = 1
CHUNKS, WORDS = 2, 40
"""Of a rollout: chunks, and words of a stream's transcript, which outlast them."""


@dataclass
class Setting:
    """Where and how a step runs."""

    device: torch.device
    batch: int
    compile: bool
    activations: str
    dtype: torch.dtype

    def plain(self) -> Setting:
        """The setting in which nothing is computed twice and every operation can be seen."""
        return replace(self, compile=False, activations="keep")

    def autocast(self) -> torch.autocast:
        """fp32 weights, computation in ``dtype``."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


class Step:
    """One training iteration on a batch that lies on the device already."""

    def __init__(self, name: str, spec: ModelSpec, grid: int, setting: Setting) -> None:
        self.spec, self.setting = spec, setting
        torch.manual_seed(0)
        with setting.device:  # drawn there: on the host it would take longer than the measurement
            self.student, self.orchestrator = spec.build_denoiser(), spec.build_orchestrator(load_llm=False)
        trained: list[nn.Module] = [self.student]
        if name == "teacher":
            trained.append(self.orchestrator)
        else:
            self.teacher = deepcopy(self.student).requires_grad_(False)
            self.critic = deepcopy(self.student)
            self.orchestrator.requires_grad_(False)
            trained.append(self.critic)
        self.name = name
        for model in trained:
            checkpoint_activations(model, setting.activations)  # type: ignore[arg-type]
        if setting.compile:
            for model in (m for m in vars(self).values() if isinstance(m, Denoiser) or m in trained):
                compile_parts(model, setting.activations == "keep")
        self.optimizers = {m: torch.optim.AdamW(
            [p for p in m.parameters() if p.requires_grad], lr=1e-5, fused=True) for m in trained}
        self.batch = random_chunks(spec, setting.batch, grid).to(setting.device)
        self.streams = random_streams(spec, (grid, grid), setting.batch, WORDS).to(setting.device)
        self.plan = student_plan(spec.diffusion)

    def run(self, number: int) -> None:
        """Iteration ``number``."""
        {"teacher": self.teach, "dmd": self.match, "critic": self.criticise, "rollout": self.roll}[self.name](number)

    def key(self, number: int, role: str) -> NoiseKey:
        """Counted noise; the samples' numbers are known on the host."""
        return NoiseKey(0, tuple(range(self.setting.batch)), role, number)

    def update(self, *models: nn.Module) -> None:
        """Clip and step on the device."""
        for model in models:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            self.optimizers[model].step()
            self.optimizers[model].zero_grad(set_to_none=True)

    def teach(self, number: int) -> None:
        batch: ChunkBatch = self.batch
        with self.setting.autocast():
            losses = joint_losses(self.student, self.orchestrator, batch, self.key(number, "train"),
                                  self.spec.diffusion, DropConfig(), with_pointer=False)
            loss = losses.video.mean() + losses.audio.mean() + 0.25 * losses.head.mean()
        loss.backward()
        self.update(self.student, self.orchestrator)

    def match(self, number: int) -> None:
        """The student's update, then the critic's."""
        key, c = self.key(number, "generator"), self.batch.conditions
        with self.setting.autocast():
            with torch.no_grad():
                prefix = self.orchestrator.prefix(c)
            out = denoise_chunk(self.student, self.orchestrator, c, prefix, self.plan, key, EXIT_STEP,
                                stop_at_exit=True)
        self.student_learns(out.exit, prefix, c, self.batch.audio_weight, number)
        self.criticise(number)

    def criticise(self, number: int) -> None:
        """The critic's update, on a sample of its own."""
        key, c = self.key(number, "critic"), self.batch.conditions
        with self.setting.autocast(), torch.no_grad():
            prefix = self.orchestrator.prefix(c)
            sample = denoise_chunk(self.student, self.orchestrator, c, prefix, self.plan, key, EXIT_STEP,
                                   stop_at_exit=True).final
        self.critic_learns(sample, prefix, c, self.batch.audio_weight, number)

    def roll(self, number: int) -> None:
        """Both updates, on the last chunk of a rollout."""
        spec = self.spec
        who = Character(self.student, self.orchestrator, spec.clock, spec.window, CountedUnits.of(spec), spec.diffusion,
                        spec.size, few_step=True)
        memory = who.start(self.streams)
        with self.setting.autocast():
            for chunk in range(CHUNKS):
                made = generate_chunk(who, memory, self.plan, EXIT_STEP, exit_grad=chunk == CHUNKS - 1,
                                      iteration=number, role="rollout")
        assert made.exit is not None
        weight = self.batch.audio_weight.new_zeros(made.exit.audio.shape[:2])
        weight[:, :made.audio_owned] = 1
        self.student_learns(made.exit, made.prefix, made.conditions, weight, number)
        self.critic_learns(made.latents, made.prefix, made.conditions, weight, number)

    def student_learns(self, sample: Latents | None, prefix: Prefix, c: Conditions, weight: Tensor, number: int
                       ) -> None:
        """An update of the student, scored by teacher and critic."""
        assert sample is not None
        with self.setting.autocast():
            scored = renoise(sample, self.orchestrator, prefix, self.key(number, "generator"), self.spec.diffusion)
            losses = generator_losses(sample, scored, self.teacher, self.critic, c, weight, self.spec.diffusion)
            loss = (losses.video + losses.audio).mean()
        loss.backward()
        self.update(self.student)

    def critic_learns(self, sample: Latents, prefix: Prefix, c: Conditions, weight: Tensor, number: int) -> None:
        """An update of the critic."""
        with self.setting.autocast():
            scored = renoise(sample, self.orchestrator, prefix, self.key(number, "critic"), self.spec.diffusion)
            losses = critic_losses(self.critic, sample, scored, c, weight)
            loss = (losses.video + losses.audio).mean()
        loss.backward()
        self.update(self.critic)


def count_flops(step: Step) -> int:
    """FLOPs of one step by torch's counter; attention as matrix products on a CPU, where it knows no fused kernel."""
    kind = "plain" if step.setting.device.type == "cpu" else "sdpa"
    counter = FlopCounterMode(display=False)
    with patch("streamchar.nn.attention.backend", lambda *_: kind), counter:
        step.run(0)
    return counter.get_total_flops()


def forget(device: torch.device) -> None:
    """Give back the memory of what is no longer used, and begin its peak anew."""
    gc.collect()  # what was compiled refers to itself
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def seconds_each(action: Callable[[int], Any], count: int, device: torch.device) -> float:
    """Mean time of ``count`` calls, after one that is not timed."""
    action(1)
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for number in range(count):
        action(2 + number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds_each(lambda _: a @ b, 20 if device.type == "cuda" else 5, device)


def synchronisations(step: Step) -> str:
    """``none``, or the first operation of a step that makes the host wait."""
    if step.setting.device.type != "cuda":
        return "no GPU"
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.run(0)
    except RuntimeError as error:
        return f"{str(error).splitlines()[0]} ({place_of(error)})"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def place_of(error: BaseException) -> str:
    """The last line of this repository on the way to an error; of a backward pass it is where that was asked for."""
    root = Path(__file__).resolve().parents[1]
    ours = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(root)
            and "site-packages" not in f.filename]
    return f"{Path(ours[-1].filename).relative_to(root)}:{ours[-1].lineno}" if ours else "outside of this repository"


def profile(step: Step, name: str, folder: Path | None) -> None:
    """Print the operations that take most of one step's time; write a trace where a folder is given."""
    cuda = step.setting.device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=kinds) as found:
        step.run(0)
        if cuda:
            torch.cuda.synchronize()
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    print(f"\nprofile of one {name} step\n" + found.key_averages().table(sort_by=by, row_limit=15))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(folder / f"{name}.json"))


def arguments() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="1b" if gpu else "tiny")
    parser.add_argument("--step", choices=("teacher", "dmd", "critic", "rollout"), action="append",
                        help="teacher; dmd: student and critic; critic alone; rollout (default: the first three)")
    parser.add_argument("--batch", type=int, default=2, help="samples of one step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16" if gpu else "fp32")
    parser.add_argument("--compile", action="store_true", help="compile denoisers' blocks, and of an LM that learns "
                        "MLPs and norms, or whole layers where it is small, as a stage does")
    parser.add_argument("--attention", choices=tuple(attention.NAMES), help="kernel (default: the preferred one)")
    parser.add_argument("--activations", choices=("keep", "selective", "recompute"), default="keep")
    parser.add_argument("--profile", action="store_true", help="print the operations that take most time")
    parser.add_argument("--trace", type=Path, help="folder for traces of the profile")
    parser.add_argument("--allow-sync", action="store_true", help="a host synchronisation is told and no failure")
    return parser.parse_args()


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} thread(s)"


def main() -> int:
    """Print the table; 1 where a step makes the host wait."""
    options = arguments()
    device = torch.device(options.device)
    spec, grid = PRESETS[options.preset]
    here = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True,
                            check=False).stdout.strip() or "no git"
    print(f"Command: python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}\nCommit {commit}, "
          f"{time.strftime('%Y-%m-%d')}, {hardware(device)}, torch {torch.__version__}, preset {options.preset}\n")
    attention.use(device.type, options.attention)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    best, failed = peak(device, dtype), False
    print(f"{options.precision} matrix product: {best / 1e12:.3g} TFLOP/s\n\n| step | batch | iterations/s "
          f"| TFLOP a step | TFLOP/s | share of the peak | memory, GiB | host waits for |\n{'|---' * 8}|")
    for name in options.step or ("teacher", "dmd", "critic"):
        setting = Setting(device, options.batch, options.compile, options.activations, dtype)
        # Of one sample, before the timed models are there, and given back: what is eager keeps more than the card has.
        flops = options.batch * count_flops(Step(name, spec, grid, replace(setting.plain(), batch=1)))
        forget(device)
        step = Step(name, spec, grid, setting)
        each = seconds_each(step.run, options.steps, device)
        waits = synchronisations(step)
        failed |= waits not in ("none", "no GPU")
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if device.type == "cuda" else "-"
        print(f"| {name} | {options.batch} | {1 / each:.3g} | {flops / 1e12:.3g} | {flops / each / 1e12:.3g} | "
              f"{100 * flops / each / best:.1f} % | {memory} | {waits} |", flush=True)
        if options.profile or options.trace:
            profile(step, name, options.trace)
        del step
        forget(device)
    return int(failed and not options.allow_sync)


if __name__ == "__main__":
    sys.exit(main())
