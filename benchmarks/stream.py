"""How fast a character of production size streams on this machine, and where the time of a chunk goes.

    python benchmarks/stream.py                              # the tiny preset on a CPU, 5B on a GPU
    python benchmarks/stream.py --preset 5b --size 512x512 --decoder tae --decoder wan
    python benchmarks/stream.py --preset 5b --predict --peak 790 --bandwidth 4.8      # FLOPs, bytes, floor; no GPU

Speed does not depend on the values of weights: they are random. Needs torch, torchaudio, transformers, numpy and
safetensors; ``wan`` and the peer need diffusers, writing an mp4 needs av (without them: told, and left out). Engines
are those of ``stream.engine``; ``bf16`` (``plain`` on a CPU) is the eager path without graphs. The peer is diffusers'
WanTransformer3DModel of the same size doing the same steps eagerly: over all tokens in each step, and over the chunk's
own alone. Per engine and decoder: the parts' times one by one (median), then a stream of ``--chunks`` chunks with
decoding and writing beside generation: time to the first chunk, percentiles per chunk, real-time factor, frames per
second, deadlines missed, peak memory, and which share of the measured matmul peak the generating of a chunk reaches.
``--characters 2``: two streams as one batch. The mp4 is written as of a live stream (x264 ``ultrafast``).
``--profile-first``: where the time of a new stream's first chunks goes, part by part, in place of all this.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stream_first import First, report  # noqa: E402
from benchmarks.stream_floor import Part, chunk_parts  # noqa: E402
from benchmarks.stream_parts import (  # noqa: E402
    PRESETS,
    SIZES,
    grid_of,
    missing,
    peer_steps,
    random_character,
    spec_of,
    video_decoder,
)
from benchmarks.train_step import hardware, peak  # noqa: E402
from streamchar.diffusion.noise import NoiseKey  # noqa: E402
from streamchar.hub.model_spec import ModelSpec  # noqa: E402
from streamchar.hub.random_batches import random_streams  # noqa: E402
from streamchar.rollout.character import Character  # noqa: E402
from streamchar.rollout.denoise import start_noise  # noqa: E402
from streamchar.rollout.plan import student_plan  # noqa: E402
from streamchar.rollout.stream import stream_chunks  # noqa: E402
from streamchar.streaming.decoding import ChunkDecoder, ChunkJob  # noqa: E402
from streamchar.streaming.engine import accelerate, warm_up  # noqa: E402
from streamchar.streaming.inference_plan import NAMED  # noqa: E402
from streamchar.streaming.session import StreamSession  # noqa: E402
from streamchar.streaming.sinks import CountingSink, Sink  # noqa: E402
from streamchar.types import RolloutBatch  # noqa: E402

REPEATS = 10


@dataclass
class Case:
    """One preset, size and decoder on one device."""

    spec: ModelSpec
    grid: tuple[int, int]
    pixels: tuple[int, int]
    decoder: str
    device: torch.device
    sound: str = "mel"
    characters: int = 1

    def prompt(self, words: int) -> RolloutBatch:
        return random_streams(self.spec, self.grid, self.characters, words).to(self.device)

    def parts(self, decode_flops: float) -> list[Part]:
        """What a chunk of all characters must cost; their weights are read once."""
        parts = chunk_parts(self.spec, self.grid, len(self.spec.diffusion.few_steps), decode_flops)
        return [replace(part, flops=self.characters * part.flops) for part in parts]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(act: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> float:
    """Median seconds of a call, after two that are not timed."""
    seconds = []
    for i in range(repeats + 2):
        synchronise(device)
        began = time.perf_counter()
        act()
        synchronise(device)
        if i >= 2:
            seconds.append(time.perf_counter() - began)
    return median(seconds)


def bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy, read and written."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / timed(lambda: target.copy_(source), device)


def decode_flops(case: Case) -> float:
    """FLOPs of decoding one chunk, counted by torch on the meta device."""
    meta = torch.device("meta")
    clock = case.spec.clock
    latents = torch.empty(1, case.spec.denoiser.video_channels, clock.video_latents, *case.grid, device=meta)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        video_decoder(case.decoder, case.spec, meta).decode(latents)
    return float(counter.get_total_flops())


@torch.no_grad()
def part_seconds(case: Case, character: Character, folder: Path) -> dict[str, float]:
    """Seconds of one call of every part, in the middle of a stream."""
    memory, plan = character.start(case.prompt(400)), student_plan(character.diffusion)
    chunk = next(stream_chunks(character, memory, plan))
    conditions, _ = memory.conditions()
    denoiser, orchestrator, device = character.denoiser, character.orchestrator, case.device
    prefix, context = orchestrator.prefix(conditions), denoiser.encode_context(conditions)
    x = start_noise(conditions, denoiser, NoiseKey.of(0, range(case.characters)))
    sigma = plan.levels(x.audio, 0)
    c_a = orchestrator.block(prefix, x.audio, sigma)
    out = {
        "orchestrator prefix": timed(lambda: orchestrator.prefix(conditions), device),
        "denoiser context": timed(lambda: denoiser.encode_context(conditions), device),
        "condition block": timed(lambda: orchestrator.block(prefix, x.audio, sigma), device),
        "denoising step": timed(lambda: denoiser(x, sigma, c_a, context, conditions.audio_time), device),
        "pointer": timed(lambda: orchestrator.point(prefix, x.audio), device)}
    count = case.characters
    decoder = ChunkDecoder(*character.codecs(), streams=count)
    job = ChunkJob(0, chunk.latents, chunk.owned, [True] * count, [False] * count, 0.0)
    decoded = [decoder.decode(job) for _ in range(REPEATS + 2)][2:]
    out["video decode"] = median(d.video_s for d in decoded)
    out["audio decode"] = median(d.audio_s for d in decoded)
    sink = sink_of(case, folder / "parts.mp4", character.codecs()[1].sample_rate)
    out["mux (CPU)"] = timed(lambda: sink.write(decoded[-1].pictures[0], decoded[-1].sounds[0]), torch.device("cpu"), 5)
    sink.close()
    return out


def sink_of(case: Case, path: Path, sample_rate: int) -> Sink:
    """An mp4 where PyAV is there, else a sink that counts."""
    if importlib.util.find_spec("av") is None:
        return CountingSink()
    from streamchar.streaming.muxer import ClipWriter

    return ClipWriter(path, case.pixels, case.spec.clock.fps, sample_rate, "ultrafast")


def sinks_of(case: Case, character: Character, folder: Path) -> list[Sink]:
    """One for each character."""
    return [sink_of(case, folder / f"stream{i}.mp4", character.codecs()[1].sample_rate) for i in range(case.characters)]


def stream_figures(case: Case, character: Character, chunks: int, folder: Path) -> dict[str, float]:
    """The summary of a stream of ``chunks`` chunks, and ``memory_gib``."""
    plan, memory = student_plan(character.diffusion), character.start(case.prompt(40 * chunks))
    warm_up(character, memory, [plan])
    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(case.device)
    session = StreamSession(case.spec.clock, *character.codecs(), sinks_of(case, character, folder), overlap=True)
    summary = session.run(stream_chunks(character, memory, plan, chunks, exactly=True)).summary()
    most = torch.cuda.max_memory_allocated(case.device) if case.device.type == "cuda" else 0
    frames_s = case.characters * case.spec.clock.fps / summary["real_time_factor"]
    return {**summary, "memory_gib": most / 2**30, "frames_s": frames_s}


def profile_first(case: Case, engine: str, options: argparse.Namespace) -> First:
    """Print where the time of a new stream's first chunks goes, after the warm-up that :func:`measure` gives it."""
    character = accelerated(case, engine, options)
    print(f"\n### The first chunks of new streams: decoder {case.decoder}, engine {engine}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = part_seconds(case, character, folder)
        print("Parts in the middle of a stream, ms a call: "
              + ", ".join(f"{part} {1e3 * took:.1f}" for part, took in seconds.items()))
        memory = character.start(case.prompt(40 * options.chunks))
        warm_up(character, memory, [student_plan(character.diffusion)])
        return report(character, lambda: character.start(case.prompt(40 * options.chunks)),
                      lambda: sinks_of(case, character, folder))


def print_parts(parts: list[Part], rates: tuple[float, float], chunk_s: float,
                measured: dict[str, float] | None = None) -> None:
    """The table of a chunk's parts."""
    print("\n| part | calls | TFLOP a call | GB a call | floor, ms | measured, ms | floor / measured |\n"
          f"{'|---' * 7}|")
    floor = 0.0
    for part in parts:
        least = part.floor_s(*rates)
        floor += least if part.name != "video decode" else 0.0
        took = part.calls * measured[part.name] if measured else 0.0
        shown = f"{1e3 * took:.2f} | {100 * least / took:.0f} %" if took else "not measured | -"
        print(f"| {part.name} | {part.calls} | {part.flops / 1e12:.3g} | {part.bytes / 1e9:.3g} | {1e3 * least:.3g} | "
              f"{shown} |")
    known = {part.name for part in parts}
    for name, took in (measured or {}).items():
        if name not in known:
            print(f"| {name} | 1 | - | - | - | {1e3 * took:.2f} | - |")
    print(f"\nFloor of generating a chunk: {floor:.4g} s, playback {chunk_s:.3f} s")


def print_stream(name: str, figures: dict[str, float], flops: float, best: float) -> None:
    """One row; its heading is printed by :func:`measure`."""
    share = 100 * flops / (figures["generate_p50_s"] * best)
    keys = ("first_chunk_s", "chunk_p50_s", "chunk_p95_s", "chunk_p99_s", "real_time_factor", "frames_s")
    print(f"| {name} | {' | '.join(f'{figures[k]:.4g}' for k in keys)} | {figures['deadline_misses']:.0f} of "
          f"{figures['chunks']:.0f} | {figures['memory_gib']:.1f} | {share:.1f} % |", flush=True)


def accelerated(case: Case, engine: str, options: argparse.Namespace) -> Character:
    """A random character that runs on ``engine``."""
    decoder = video_decoder(case.decoder, case.spec, case.device)
    return accelerate(random_character(case.spec, decoder, case.device, case.sound),
                      replace(NAMED[engine], codecs=not options.plain_codecs))


def measure(case: Case, engines: list[str], options: argparse.Namespace, rates: tuple[float, float]) -> None:
    """Both tables of every engine, and a line of JSON where it was asked for."""
    parts = case.parts(decode_flops(case))
    flops = sum(p.calls * p.flops for p in parts if p.name != "video decode")
    for engine in engines:
        began = time.perf_counter()
        character = accelerated(case, engine, options)
        print(f"\n### {case.pixels[0]}x{case.pixels[1]}, decoder {case.decoder}, sound {case.sound}, "
              f"characters {case.characters}, engine {engine}")
        with tempfile.TemporaryDirectory() as folder:
            seconds = part_seconds(case, character, Path(folder))
            print_parts(parts, rates, float(case.spec.clock.chunk_seconds), seconds)
            print("\n| engine | first chunk, s | p50, s | p95, s | p99, s | real-time factor | frames/s | "
                  f"deadlines missed | memory, GiB | share of the peak |\n{'|---' * 10}|")
            figures = stream_figures(case, character, options.chunks, Path(folder))
            print_stream(engine, figures, flops, rates[0])
        print(f"\nAll of this took {time.perf_counter() - began:.0f} s")
        if options.json:
            line = {"command": sys.argv[1:], "device": hardware(case.device), "engine": engine,
                    "decoder": case.decoder, "parts_s": seconds, "stream": figures}
            with open(options.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        del character
        if case.device.type == "cuda":
            torch.cuda.empty_cache()


def measure_peer(case: Case) -> None:
    """The peer's steps."""
    steps = len(case.spec.diffusion.few_steps)
    for context, name in ((True, "all tokens in each step"), (False, "the chunk's own tokens alone")):
        seconds = timed(peer_steps(case.spec, case.grid, case.device, context), case.device, 3)
        print(f"\nWanTransformer3DModel, {steps} steps, {name}: {seconds:.4g} s", flush=True)


def arguments() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="5b" if gpu else "tiny")
    parser.add_argument("--size", choices=SIZES, help="pictures (default: 512x512; the tiny preset has its own)")
    parser.add_argument("--decoder", choices=("pca", "tae", "wan"), action="append", help="default: tae; tiny: pca")
    parser.add_argument("--engine", choices=NAMED, action="append",
                        help="default: bf16, compiled, fp8; on a CPU plain, bf16, graphs")
    parser.add_argument("--sound", choices=("mel", "ltx2"), default="mel")
    parser.add_argument("--characters", type=int, default=1, help="streams generated as one batch")
    parser.add_argument("--plain-codecs", action="store_true", help="leave the codecs out of the engine")
    parser.add_argument("--json", metavar="FILE", help="append a line of JSON for every case")
    parser.add_argument("--chunks", type=int, default=200, help="of the stream; 437 are ten minutes")
    parser.add_argument("--first-frames", type=int, default=0, help="frames of the first chunk; 0: as all others")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--profile-first", action="store_true", help="the first chunks of new streams, part by part")
    parser.add_argument("--predict", action="store_true", help="print the floor and measure nothing")
    parser.add_argument("--peak", type=float, help="TFLOP/s to predict with (default: measured here)")
    parser.add_argument("--bandwidth", type=float, help="TB/s to predict with (default: measured here)")
    return parser.parse_args()


def main() -> int:
    """Print the tables."""
    options = arguments()
    device, tiny = torch.device(options.device), options.preset == "tiny"
    size = "tiny" if tiny else options.size or "512x512"
    spec, grid = spec_of(options.preset, options.sound), grid_of(options.preset, size)
    spec = replace(spec, clock=replace(spec.clock, first_frames=options.first_frames))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).resolve().parent,
                            text=True, capture_output=True, check=False).stdout.strip() or "no git"
    print(f"Command: python benchmarks/stream.py {' '.join(sys.argv[1:])}\nCommit {commit}, "
          f"{time.strftime('%Y-%m-%d')}, {hardware(device)}, torch {torch.__version__}, preset {options.preset}, "
          f"{size}")
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    rates = (1e12 * options.peak if options.peak else peak(device, half),
             1e12 * options.bandwidth if options.bandwidth else bandwidth(device))
    print(f"Matrix product {rates[0] / 1e12:.4g} TFLOP/s, copy {rates[1] / 1e12:.4g} TB/s")
    if importlib.util.find_spec("av") is None:
        print("av is not installed: nothing is muxed, its times are those of a counter")
    for decoder in options.decoder or (["pca"] if tiny else ["tae"]):
        case = Case(spec, grid, SIZES[size], decoder, device, options.sound, options.characters)
        if reason := missing(decoder) or missing(options.sound):
            print(f"\ndecoder {decoder}, sound {options.sound}: not measured, {reason}")
        elif options.predict:
            print_parts(case.parts(decode_flops(case)), rates, float(spec.clock.chunk_seconds))
        else:
            fast = ["bf16", "compiled", "fp8"] if device.type == "cuda" else ["plain", "bf16", "graphs"]
            engines = options.engine or fast
            if options.profile_first:
                for engine in engines:
                    profile_first(case, engine, options)
            else:
                measure(case, engines, options, rates)
    if not options.predict and not options.no_peer and not options.profile_first:
        reason = missing("peer")
        print(f"\npeer: not measured, {reason}") if reason else measure_peer(
            Case(spec, grid, SIZES[size], "tae", device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
