"""Where the time of a stream's first chunks goes, for ``stream.py --profile-first``.

After the warm-up of the benchmark: new streams, one after another, with decoding beside generation as ever. Of their
first chunks every part is timed in its own thread, which waits for its CUDA stream alone after each part (not in the
first stream's generating, which is left to run ahead as it does). Counted meanwhile: graphs recorded, frames compiled,
allocations on device and host, the collector. Then a stream that decodes in line, one under cProfile (generating the
first chunk) and one under torch's profiler.
"""

from __future__ import annotations

import cProfile
import gc
import io
import pstats
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from streamchar.nn.static_call import StaticCall
from streamchar.rollout import denoise, stream
from streamchar.rollout.character import Character
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import student_plan
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import Sink

CHUNKS = 4
SHOWN = 3
LONG_MS = 2.0


@dataclass
class Trace:
    """Milliseconds of parts by (part, chunk), each in the order of its calls.

    wait: whether the generating thread, too, waits for the device after every part.
    """

    wait: bool
    ms: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    names: list[str] = field(default_factory=list)
    _now: dict[int, int] = field(default_factory=dict)
    _begun: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def timed(self, name: str, act: Callable[..., Any], whole: bool = False) -> Callable[..., Any]:
        """``act``, its time noted; ``whole``: it is a chunk's whole generating or decoding, and begins the next."""

        def run(*arguments: Any, **named: Any) -> Any:
            thread = threading.get_ident()
            if whole:
                self._now[thread], self._begun[name] = self._begun[name], self._begun[name] + 1
            began = time.perf_counter()
            result = act(*arguments, **named)
            beside = thread != threading.main_thread().ident
            if not whole and torch.cuda.is_initialized() and (self.wait or beside):
                torch.cuda.current_stream().synchronize()
            self.ms[name, self._now.get(thread, -1)].append(1e3 * (time.perf_counter() - began))
            return result

        return run

    @contextmanager
    def watching(self, character: Character, memory: StreamMemory, session: StreamSession) -> Iterator[None]:
        """Time the parts of what these do; ``>`` marks parts of the part above."""
        decoder = session.decoder
        parts: list[tuple[Any, str, str, bool]] = [
            (stream, "generate_chunk", "generate", True), (memory, "conditions", "> conditions", False),
            (character.orchestrator, "prefix", "> orchestrator prefix", False),
            (character.denoiser, "encode_context", "> denoiser context", False),
            (denoise, "start_noise", "> noise", False), (character.orchestrator, "block", "> condition block", False),
            (character.denoiser, "forward", "> denoising step", False), (denoise, "_renoised", "> re-noising", False),
            (character.orchestrator, "point", "> pointer", False), (memory, "advance", "> memory advances", False),
            (decoder, "decode", "decode", True), (decoder, "_pictures", "> pictures", False),
            (decoder.video_codec, "decode", "> > network", False), (decoder, "_sounds", "> sounds", False)]
        if hasattr(character.audio_codec, "step"):
            parts.append((character.audio_codec, "step", "> > latent", False))
        self.names = [name for _, _, name, _ in parts]
        with ExitStack() as stack:
            for owner, method, name, whole in parts:
                stack.enter_context(patch.object(owner, method, self.timed(name, getattr(owner, method), whole)))
            yield


class Counts:
    """What should stand still once a stream runs, counted from a beginning."""

    def __init__(self, character: Character) -> None:
        models = (character.denoiser, character.orchestrator, character.video_codec, character.audio_codec)
        self.calls = [v for m in models for v in vars(m).values() if isinstance(v, StaticCall)]
        self.collector_s, self._began = 0.0, 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.collector_s += time.perf_counter() - self._began

    def now(self) -> dict[str, float]:
        """All of them; a difference of two says what happened between."""
        out = {"graphs recorded": float(sum(c.recorded for c in self.calls)),
               "frames compiled": float(counters["frames"]["total"]), "collector ms": 1e3 * self.collector_s}
        if torch.cuda.is_initialized():
            device, host = torch.cuda.memory_stats(), torch.cuda.host_memory_stats()
            out |= {name: float(device.get(name, 0)) for name in (
                "num_device_alloc", "num_device_free", "num_alloc_retries", "num_sync_all_streams")}
            out |= {f"host {name}": float(value) for name, value in host.items() if name.startswith("num_host")}
        return out


def differences(snapshots: list[dict[str, float]]) -> str:
    """What changed from each to the next; names that never change are left out."""
    steps = [{k: b[k] - a[k] for k in b} for a, b in zip(snapshots, snapshots[1:], strict=False)]
    changed = [k for k in snapshots[0] if any(s[k] for s in steps)]
    return "; ".join(f"{k} {'/'.join(f'{s[k]:.0f}' for s in steps)}" for k in changed) or "nothing"


@dataclass
class First:
    """Runs new streams of a warmed-up character.

    begin: gives a new stream's memory. sinks: opens its sinks.
    """

    character: Character
    begin: Callable[[], StreamMemory]
    sinks: Callable[[], list[Sink]]
    counts: Counts

    def run(self, trace: Trace | None = None, around: Callable[[int], AbstractContextManager[Any]] | None = None,
            kind: type[StreamSession] = StreamSession, overlap: bool = True, chunks: int = CHUNKS) -> str:
        """One stream; returns its rows. ``around(i)``: entered around the generating of chunk i."""
        memory, character = self.begin(), self.character
        session = kind(character.clock, *character.codecs(), self.sinks(), overlap=overlap)
        seen = [self.counts.now()]
        source = stream.stream_chunks(character, memory, student_plan(character.diffusion), chunks, exactly=True)

        def watched(chunks: Iterable[Any]) -> Iterator[Any]:
            items, i = iter(chunks), 0
            while True:
                with around(i) if around else nullcontext():
                    chunk = next(items, None)
                if chunk is None:
                    return
                seen.append(self.counts.now())
                yield chunk
                i += 1

        with trace.watching(character, memory, session) if trace else nullcontext():
            record = session.run(watched(source))
        seen.append(self.counts.now())
        rows = [f"{i}: {1e3 * c.generate:.0f} + {1e3 * c.decode_video:.0f} + {1e3 * c.decode_audio:.0f}, "
                f"{1e3 * c.mux:.0f}, {1e3 * c.ready:.0f}" for i, c in enumerate(record.chunks)]
        return " | ".join(rows) + f"\n  counted before/in the chunks, after: {differences(seen)}"


def print_traces(traces: list[Trace]) -> None:
    """One line a part: ms of all its calls in the first chunks of every stream; of several, first and longest."""
    print(f"\nms a part; of each stream chunks 0 to {SHOWN - 1} (of several calls: the first, the longest)")
    for name in traces[-1].names:
        cells = []
        for trace in traces:
            each = [trace.ms.get((name, i), []) for i in range(SHOWN)]
            cells.append(" ".join(f"{sum(v):.1f}" + (f"({v[0]:.1f},{max(v):.1f})" if len(v) > 1 else "") for v in each))
        print(f"{name} x{len(traces[-1].ms.get((name, 1), []))}: {' | '.join(cells)}")


def print_profile(profiler: profile, top: int) -> None:
    """Long calls of the CUDA runtime in the order of time, then what took most on the host and on the device."""
    events = [e for e in profiler.events() or [] if e.time_range.elapsed_us() > 0]
    start = min((e.time_range.start for e in events), default=0.0)
    calls = [e for e in events if re.match(r"cu(da)?[A-Z]", e.name) and e.time_range.elapsed_us() > 1e3 * LONG_MS]
    print(f"\nCUDA calls over {LONG_MS:.0f} ms (thread, at ms, ms): " + "; ".join(
        f"{e.name[:28]} {e.thread} {(e.time_range.start - start) / 1e3:.0f} {e.time_range.elapsed_us() / 1e3:.0f}"
        for e in sorted(calls, key=lambda e: e.time_range.start)[:30]))
    averages = profiler.key_averages()
    for title, value in (("host, own ms", lambda e: e.self_cpu_time_total),
                         ("device, own ms", lambda e: e.self_device_time_total)):
        rows = [e for e in sorted(averages, key=value, reverse=True)[:top] if value(e)]
        print(f"\n{title} (calls): " + "; ".join(f"{e.key[:36]} {value(e) / 1e3:.1f} ({e.count})" for e in rows))


def print_calls(calls: cProfile.Profile, title: str, top: int) -> None:
    """The functions in which most time passed, with what they called."""
    text = io.StringIO()
    pstats.Stats(calls, stream=text).strip_dirs().sort_stats("cumulative").print_stats(top)
    rows = [line.split(None, 5) for line in text.getvalue().splitlines() if re.match(r"\s+\d+(/\d+)?\s+\d+\.\d", line)]
    print(f"\n{title}, cProfile: cumulative ms (calls): " + "; ".join(
        f"{r[5][:44]} {1e3 * float(r[3]):.0f} ({r[0]})" for r in rows))


def report(character: Character, begin: Callable[[], StreamMemory], sinks: Callable[[], list[Sink]],
           streams: int = 3, top: int = 25) -> First:
    """Print all of it for ``streams`` new streams; the character must be warmed up."""
    first = First(character, begin, sinks, Counts(character))
    traces = [Trace(wait=i > 0) for i in range(streams)]
    print("\nms, chunk: generate + pictures + sound, mux, ready since the stream was asked for")
    for i, trace in enumerate(traces):
        print(f"new stream {i + 1}: {first.run(trace)}", flush=True)
    print(f"not traced: {first.run()}")
    print(f"in line, nothing beside: {first.run(overlap=False)}", flush=True)
    print_traces(traces)
    generating = cProfile.Profile()
    first.run(around=lambda i: generating if i == 0 else nullcontext(), chunks=2)
    print_calls(generating, "first generate", 30)
    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_initialized() else []
    with profile(activities=[ProfilerActivity.CPU, *cuda], acc_events=True) as profiler:
        print(f"\nunder torch's profiler: {first.run(chunks=2)}")
    print_profile(profiler, top)
    return first
