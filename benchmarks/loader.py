"""How much the loader costs beside what it cannot do without, as ratios in one run.

    python benchmarks/loader.py --folder SCRATCH --grid ../shared/data/grid      # about ten minutes on two cores

    python benchmarks/loader.py --folder SCRATCH --processor      # latents without workers, by processor time

Each figure is the median over rounds in which ours and the peer take turns, so that other load on the machine meets
both. **Raw**: ``read_clips`` (tar, checks, pictures, sound, words) against bare PyAV decoding of the same files from
memory, each in 1 or 2 processes. **Latents**: batches of composed items through a DataLoader against three peers in the
same DataLoader: (a) the very same bytes read from the tars (``pread``, out of the page cache) and copied once into the
batch; (b) that copy alone, from views that lie ready in mapped tars; (c) plain ``webdataset`` that reads the same tars
and cuts one chunk with its conditions from each clip. Sizes: ``grid`` 8 x 9 x 12 x 12 and ``production``
48 x 9 x 32 x 32 latents a chunk; values are random.
"""

from __future__ import annotations

import argparse
import io
import itertools
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.batches import TOGETHER, Cursor, Share, Source, TrainBatches  # noqa: E402
from datamodules.clip_reader import read_clips  # noqa: E402
from datamodules.collate import ChunkCollate  # noqa: E402
from datamodules.compose import ChunkItem, ItemComposer  # noqa: E402
from datamodules.config import DataConfig  # noqa: E402
from datamodules.latent_format import ClipRecord, LatentIndex, PhaseRecord  # noqa: E402
from datamodules.latent_shards import LatentStore  # noqa: E402
from datamodules.latent_writer import LatentShardWriter, shard_record, write_index  # noqa: E402
from datamodules.quarantine import Quarantine  # noqa: E402
from datamodules.shards import expand_shards  # noqa: E402
from streamchar.clock import ChunkClock  # noqa: E402
from streamchar.orchestrator.text import SpelledWords  # noqa: E402
from streamchar.window import WindowConfig  # noqa: E402

CLOCK = ChunkClock(fps=25, chunk_frames=33, audio_rate=25, sample_rate=16000)
WINDOW = WindowConfig(sink_latents=3, motion_latents=5, past_audio_s=0.32, anchor_s=1.0, recent_s=4.0)
SIZES = {"grid": ((8, 9, 12, 12), 96, 120), "production": ((48, 9, 32, 32), 128, 24)}
"""Chunk, audio channels, clips of each set."""
CLIP_S = 6.0
LARGE_SPAN = 1 << 16
"""Bytes above which the peer reads only the runs of an array that it needs."""
BATCH = 8


def main() -> None:
    """Print the tables."""
    options = _arguments()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True, check=False).stdout.strip()
    print(f"{platform.machine()}, {multiprocessing.cpu_count()} cores, commit {commit}, torch {torch.__version__}\n")
    print("| what | workers | ours | peer | ratio (lowest .. highest round) |\n|---|---|---|---|---|")
    if options.grid:
        for processes in (1, 2):
            raw_rows(options.grid, processes, options.rounds)
    for name in SIZES:
        store = LatentStore(made(options.folder / name, name), CLOCK)
        for workers in (0,) if options.processor else (0, 1, 2):
            latent_rows(name, store, workers, options.rounds, options.processor)
    if options.processor:
        return
    print()
    memory(LatentStore(options.folder / "grid", CLOCK))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch folder for the latents")
    parser.add_argument("--grid", type=Path, help="folder of the GRID shards; without it no raw clips")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", action="store_true",
                        help="items per second of processor time, which other load on the machine moves less")
    return parser.parse_args()


def compare(title: str, workers: int, unit: str, ours: Callable[[], float], peer: Callable[[], float],
            rounds: int) -> None:
    """One row: rates of both, taken in turn."""
    pairs = [(ours(), peer()) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    mine, other = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    print(f"| {title} | {workers} | {mine:.1f} {unit} | {other:.1f} {unit} | **{statistics.median(ratios):.2f}** "
          f"({ratios[0]:.2f} .. {ratios[-1]:.2f}) |", flush=True)


def rate(work: Callable[[], int], now: Callable[[], float] = time.perf_counter) -> float:
    """What ``work`` counts, per second."""
    begun = now()
    return work() / (now() - begun)


# ---------------------------------------------------------------------------------------------------------- raw clips


def raw_rows(folder: Path, processes: int, rounds: int) -> None:
    shards = expand_shards(str(folder / "*val*.tar"))
    files = [media for shard in shards for media in _media(Path(str(shard)))]

    def in_processes(work: Callable[[], int]) -> float:
        if processes == 1:
            return rate(work)
        fork = multiprocessing.get_context("fork")
        gate, counts = fork.Barrier(processes + 1), fork.SimpleQueue()

        def child() -> None:
            gate.wait()
            counts.put(work())

        running = [fork.Process(target=child) for _ in range(processes)]
        for process in running:
            process.start()
        gate.wait()
        return rate(lambda: sum(counts.get() for _ in running))

    compare("raw clips, bare PyAV", processes, "clips/s",
            lambda: in_processes(lambda: sum(1 for _ in read_clips(shards, Quarantine()))),
            lambda: in_processes(lambda: sum(_decode(body) for body in files)), rounds)


def _media(shard: Path) -> Iterator[bytes]:
    with tarfile.open(shard) as tar:
        for member in tar:
            if member.name.endswith(".mp4"):
                yield tar.extractfile(member).read()  # type: ignore[union-attr]


def _decode(body: bytes) -> int:
    """Pictures as RGB arrays and sound as float samples, nothing else."""
    import av

    with av.open(io.BytesIO(body)) as box:
        box.streams.video[0].codec_context.thread_count = 1
        pictures = np.stack([f.to_ndarray(format="rgb24") for f in box.decode(video=0)])
        box.seek(0)
        sound = np.concatenate([f.to_ndarray().reshape(-1) for f in box.decode(audio=0)])
    return int(len(pictures) > 0 and len(sound) > 0)


# ------------------------------------------------------------------------------------------------------------ latents


def made(folder: Path, name: str) -> Path:
    """A set of random latents, written once."""
    if (folder / "shards.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    chunk, channels, clips = SIZES[name]
    offsets = [p * CLOCK.chunk_frames // 4 for p in range(4)]
    index = LatentIndex("v", "a", CLOCK.fps, CLOCK.chunk_frames, CLOCK.audio_rate, CLOCK.sample_rate, channels,
                        list(chunk), offsets, 0)
    records = []
    for shard in range(2):
        path = folder / f"latents-{shard:05d}.tar"
        with LatentShardWriter(path) as writer:
            for number in range(shard * clips // 2, (shard + 1) * clips // 2):
                writer.add(*_clip(number, chunk, channels, offsets))
        records.append(shard_record(path, writer, "recipe", []))
    write_index(folder, index, records)
    return folder


def _clip(number: int, chunk: Sequence[int], channels: int, offsets: list[int]) -> tuple[ClipRecord, dict[str, Any]]:
    rng = np.random.default_rng(number)
    tensors, phases = {}, []
    for p, offset in enumerate(offsets):
        chunks = math.ceil((CLIP_S * CLOCK.fps - offset) / CLOCK.chunk_frames) + 1
        latents = CLOCK.audio_start(chunks - 1) + CLOCK.audio_latents
        tensors[f"audio.{p}"] = rng.standard_normal((latents, channels), np.float32).astype(np.float16)
        tensors[f"video.{p}"] = rng.standard_normal((chunks, *chunk), np.float32).astype(np.float16)
        phases.append(PhaseRecord(offset, chunks, latents))
    words = [{"w": "word", "start": t, "end": t + 0.35} for t in np.arange(0.3, CLIP_S - 0.8, 0.4).tolist()]
    name = f"s{number % 4}"
    return ClipRecord(f"clip{number:03d}", name, name, "", words, CLIP_S, True, phases), tensors


class Copies(IterableDataset):
    """Batches that are one copy of bytes that lie ready in mapped tars: what no loader can save.

    With ``files`` every array is read from its tar first.
    """

    def __init__(self, batches: list[list[ChunkItem]], files: Files | None = None) -> None:
        self.batches = [[_arrays(item) for item in items] for items in batches]
        self.read = [[[files.reader(a) for a in arrays] for arrays in batch] for batch in self.batches] if files else []
        whole = _arrays_of_whole(batches)
        self.shapes = [a.shape for a in whole]

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for number in itertools.count(first, step):
            batch = self.batches[number % len(self.batches)]
            out = [torch.empty(len(batch), *shape) for shape in self.shapes]
            if self.read:
                batch = [[read() for read in row] for row in self.read[number % len(self.read)]]
            for i, arrays in enumerate(batch):
                for target, array in zip(out, arrays, strict=True):
                    if array is not None:
                        target[i, :len(array)] = torch.from_numpy(array)
            yield out


class Files:
    """Reads arrays, which are views into mapped tars, from the tars' files."""

    def __init__(self, store: LatentStore) -> None:
        self.tars = [(store.maps.whole(s), os.open(store.maps.name(s), os.O_RDONLY))
                     for s in range(len(store.index.shards))]

    def reader(self, array: np.ndarray | None) -> Callable[[], np.ndarray | None]:
        """What reads it again: in one piece, or only the runs that are used where the piece is large and mostly not.

        Sounds that were joined from several clips are not read: they are in memory already.
        """
        for blob, file in self.tars if array is not None and array.size else ():
            at = array.ctypes.data - blob.ctypes.data
            if 0 <= at < len(blob):
                span = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
                step, run = array.strides[0], array[0].nbytes
                if span <= max(array.nbytes, LARGE_SPAN):
                    return lambda: np.ndarray(array.shape, array.dtype, os.pread(file, span, at), 0, array.strides)
                return lambda: np.frombuffer(b"".join([os.pread(file, run, at + i * step) for i in range(len(array))]),
                                             array.dtype).reshape(array.shape)
        return lambda: array


def _arrays(item: ChunkItem) -> list[np.ndarray | None]:
    return [item.video, item.audio, item.ref, item.motion, item.sink, item.past, item.anchor, item.recent]


def _arrays_of_whole(batches: list[list[ChunkItem]]) -> list[np.ndarray]:
    """The largest of each group."""
    groups = zip(*[_arrays(i) for items in batches for i in items], strict=True)
    return [max((a for a in group if a is not None), key=lambda a: a.shape[0]) for group in groups]


def as_it_is(batch: Any) -> Any:
    return batch


def latent_rows(name: str, store: LatentStore, workers: int, rounds: int, processor: bool = False) -> None:
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=1)
    index = store.index
    collate = ChunkCollate(CLOCK, WINDOW, index.audio_channels, index.video, items.units.width)
    ours = TrainBatches(Source(items.item, collate, TOGETHER), Cursor(), Share(BATCH))
    for number in range(len(store.clips)):  # the first look at every value is not what is compared
        store.usable(store.clips[number])
    plan = [[items.item(p) for p in range(b * BATCH, (b + 1) * BATCH)] for b in range(40)]
    streams = {kind: iter(DataLoader(data, batch_size=None, num_workers=workers, collate_fn=as_it_is))
               for kind, data in (("ours", ours), ("read", Copies(plan, Files(store))), ("copy", Copies(plan)),
                                  ("web", Webdataset(store.folder)))}
    batches = 48 if name == "production" else 240  # many more than workers hold ready

    def take(kind: str, count: int) -> float:
        return rate(lambda: sum(BATCH for _ in itertools.islice(streams[kind], count)),
                    time.process_time if processor else time.perf_counter)

    if processor:
        streams.pop("web")
    for kind in streams:
        take(kind, 2 * max(workers, 1))  # processes are up, what they had prefetched is used
    for kind, title in (("read", "the same bytes read and copied"), ("copy", "the copy alone")):
        compare(f"latents, {name}: {title}", workers, "items/s", lambda: take("ours", batches),
                lambda kind=kind: take(kind, batches), rounds)
    if not processor:
        compare(f"latents, {name}: plain webdataset", workers, "items/s", lambda: take("ours", batches),
                lambda: take("web", 24), rounds)


class Webdataset(IterableDataset):
    """Plain webdataset over the same tars: decode each clip, cut one chunk with its conditions, stack."""

    def __init__(self, folder: Path) -> None:
        self.urls = sorted(str(p) for p in folder.glob("*.tar"))

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        import webdataset as wds

        info = get_worker_info()
        urls = self.urls[info.id::info.num_workers] if info else self.urls
        rng = np.random.default_rng(0)
        clips = wds.WebDataset(urls, shardshuffle=False, empty_check=False).repeat().shuffle(16).map(
            lambda sample: _cut(sample["safetensors"], rng))
        while True:
            rows = list(itertools.islice(clips, BATCH))
            yield [torch.from_numpy(np.stack(group)).float() for group in zip(*rows, strict=True)]


def _cut(blob: bytes, rng: np.random.Generator) -> list[np.ndarray]:
    from safetensors.numpy import load

    tensors = load(blob)
    phase = int(rng.integers(4))
    video, audio = tensors[f"video.{phase}"], tensors[f"audio.{phase}"]
    chunk = int(rng.integers(1, len(video)))
    at = CLOCK.audio_start(chunk)
    return [video[chunk], audio[at:at + CLOCK.audio_latents], video[0][:, :1], video[chunk - 1][:, -5:],
            video[0][:, :3], audio[at - 8:at], audio[:25]]


def memory(store: LatentStore) -> None:
    """Anonymous memory of a process after 1,000 and after 10,000 items."""
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=1)
    collate = ChunkCollate(CLOCK, WINDOW, store.index.audio_channels, store.index.video, items.units.width)
    stream = iter(TrainBatches(Source(items.item, collate, TOGETHER), Cursor(), Share(BATCH)))
    told = []
    for count in (1_000, 9_000):
        for _ in range(count // BATCH):
            next(stream)
        told.append(_anonymous())
    print(f"Memory after 1,000 items {told[0]:.1f} MB, after 10,000 {told[1]:.1f} MB (anonymous; peak of the run "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB)")


def _anonymous() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1e3


if __name__ == "__main__":
    main()
