"""The order, the index and the first batch of a run at its real size: 5 M clips, 512 ranks x 4 workers.

    python benchmarks/large_run.py --folder SCRATCH            # minutes, about 1 GB of memory and disk

No data set is needed: every shard is a link to one small real tar (1,000 clips of tiny latents, 4 to 20 s long), so
that items are composed and read as in a run, while the table, the order and the partition have their real sizes. Each
row is measured; ``own`` memory is what a process has written and shares with nobody.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.batches import Cursor, Share, TrainBatches  # noqa: E402
from datamodules.clip_table import TABLE_NAME, ClipTable, shards_digest, table_path  # noqa: E402
from datamodules.collate import ChunkCollate  # noqa: E402
from datamodules.compose import ItemComposer  # noqa: E402
from datamodules.config import DataConfig  # noqa: E402
from datamodules.latent_format import INDEX_NAME, ClipRecord, LatentIndex, PhaseRecord  # noqa: E402
from datamodules.latent_shards import LatentStore  # noqa: E402
from datamodules.latent_writer import LatentShardWriter, shard_record, write_index  # noqa: E402
from datamodules.module import Source  # noqa: E402
from datamodules.order import batch_positions  # noqa: E402
from streamchar.clock import ChunkClock  # noqa: E402
from streamchar.orchestrator.text import SpelledWords  # noqa: E402
from streamchar.window import WindowConfig  # noqa: E402

CLOCK = ChunkClock(fps=24, chunk_frames=33, audio_rate=25, sample_rate=16000)
WINDOW = WindowConfig(sink_latents=3, motion_latents=5, past_audio_s=0.32, anchor_s=1.0, recent_s=4.0)
SPEAKERS = 16
"""Per shard: 5,000 shards then have as many as SpeakerVid-5M."""


def main() -> None:
    """Print the table."""
    options = _arguments()
    folder = options.folder / f"large-{options.clips}"
    print(f"{platform.processor() or platform.machine()}, {multiprocessing.cpu_count()} cores, commit {_commit()}")
    print(f"{options.clips:,} clips in {options.shards:,} shards, {options.ranks} ranks x {options.workers} workers, "
          f"{options.batch} items per rank\n")
    print("| what | measured |\n|---|---|")
    make_links(folder, options.clips, options.shards)
    seconds, table = timed(lambda: write_index(folder, empty_index(), records_of(folder)))
    size = (folder / TABLE_NAME).stat().st_size
    row("table put together from the shards' tables", f"{seconds:.1f} s")
    row("table on disk", f"{size / 1e6:.0f} MB, {size / len(table):.0f} B a clip; shards.json "
                         f"{(folder / INDEX_NAME).stat().st_size / 1e6:.1f} MB")
    del table
    fork = multiprocessing.get_context("fork")
    for title, consumed in (("start", 0), ("resumed at sample 1,234,567,890", 1_234_567_890)):
        results = fork.SimpleQueue()
        process = fork.Process(target=first_batch, args=(folder, options, consumed, results))
        process.start()
        for name, value in results.get().items():
            row(f"{title}: {name}", value)
        process.join()
    store, items = opened(folder, options)
    row("one global batch, all ranks and workers", check_partition(options))
    row("one whole epoch", check_epoch(items))
    row("own memory of a worker after 200 batches", ", ".join(f"{m:.0f} MB" for m in worker_memory(items, options)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch folder")
    parser.add_argument("--clips", type=int, default=5_000_000)
    parser.add_argument("--shards", type=int, default=5_000)
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2, help="items per rank and step")
    return parser.parse_args()


def row(name: str, value: str) -> None:
    print(f"| {name} | {value} |", flush=True)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def own_memory() -> float:
    """MB that this process has written and shares with nobody (pages of files that are only read do not count)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3


# ------------------------------------------------------------------------------------------------------ the data set


def offsets() -> list[int]:
    return [p * CLOCK.chunk_frames // 4 for p in range(4)]


def empty_index() -> LatentIndex:
    return LatentIndex("v", "a", CLOCK.fps, CLOCK.chunk_frames, CLOCK.audio_rate, CLOCK.sample_rate, 2,
                       [2, CLOCK.video_latents, 2, 2], offsets(), 16)


def tiny_clip(number: int, rng: np.random.Generator) -> tuple[ClipRecord, dict[str, np.ndarray]]:
    """4 to 20 s with a word every .4 s."""
    seconds = float(rng.uniform(4, 20))
    tensors: dict[str, np.ndarray] = {}
    phases = []
    for p, offset in enumerate(offsets()):
        chunks = math.ceil((seconds * CLOCK.fps - offset) / CLOCK.chunk_frames) + 1
        latents = CLOCK.audio_start(chunks - 1) + CLOCK.audio_latents
        tensors[f"audio.{p}"] = rng.standard_normal((latents, 2)).astype(np.float16)
        tensors[f"video.{p}"] = rng.standard_normal((chunks, 2, CLOCK.video_latents, 2, 2)).astype(np.float16)
        phases.append(PhaseRecord(offset, chunks, latents))
    words = [{"w": "word", "start": t, "end": t + 0.35} for t in np.arange(0.3, seconds - 0.8, 0.4).tolist()]
    speaker = f"s{number * SPEAKERS // 1000}"
    return ClipRecord(f"clip{number:04d}", speaker, speaker, " ".join("word" for _ in words), words, seconds, True,
                      phases), tensors


def make_links(folder: Path, clips: int, shards: int) -> None:
    """One real shard, and links to it with tables of their own speakers."""
    if (folder / "made").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    real = folder / "real.tar"
    rng = np.random.default_rng(0)
    with LatentShardWriter(real) as writer:
        for number in range(clips // shards):
            writer.add(*tiny_clip(number, rng))
    record = shard_record(real, writer, "recipe", [])
    table = ClipTable.load(table_path(real))
    for shard in range(shards):
        path = folder / f"latents-{shard:05d}.tar"
        path.symlink_to(real)
        mine = {**record, "file": path.name}
        names = {g: [f"{shard}-{n}" for n in table.names[g]] for g in table.names}
        ClipTable(table.columns, table.bounds, names, shards_digest([mine])).save(table_path(path))
        path.with_suffix(".json").write_text(json.dumps(mine))
    (folder / "made").touch()


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(folder.glob("latents-*.json"))]


# ------------------------------------------------------------------------------------------------------ measurements


def opened(folder: Path, options: argparse.Namespace) -> tuple[LatentStore, ItemComposer]:
    store = LatentStore(folder, CLOCK)
    return store, ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=1)


def batches(items: ItemComposer, options: argparse.Namespace, consumed: int, rank: int) -> TrainBatches:
    index = items.store.index
    collate = ChunkCollate(CLOCK, WINDOW, index.audio_channels, index.video, items.units.width)
    return TrainBatches(Source(items.item, collate), Cursor(consumed), Share(options.batch, rank, options.ranks))


def first_batch(folder: Path, options: argparse.Namespace, consumed: int, results: Any) -> None:
    """Open the set as the last rank does, and take its first batch."""
    before = own_memory()
    begun = time.perf_counter()
    store, items = opened(folder, options)
    opening = time.perf_counter() - begun
    seconds, batch = timed(lambda: next(iter(batches(items, options, consumed, options.ranks - 1))))
    first = consumed + options.ranks - 1
    assert batch.index.tolist() == list(range(first, first + options.batch * options.ranks, options.ranks))
    results.put({"opened": f"{opening:.2f} s", "first batch after it": f"{1e3 * seconds:.0f} ms",
                 "shards mapped for it": str(len(store.maps._maps)),
                 "window": f"{items.order.window} shards", "epoch": f"{items.order.epoch_length:,} visits",
                 "own memory": f"{own_memory() - before:.0f} MB"})


def check_partition(options: argparse.Namespace) -> str:
    """Every position of a stretch of the order is taken by exactly one worker of one rank."""
    consumed, steps = 987_654_321, 2 * options.workers
    begun = time.perf_counter()
    taken = [p for rank in range(options.ranks) for worker in range(options.workers)
             for batch in range(worker, steps, options.workers)
             for p in batch_positions(consumed, batch, options.batch, rank, options.ranks)]
    whole = range(consumed, consumed + steps * options.batch * options.ranks)
    assert sorted(taken) == list(whole)
    return f"{len(taken):,} positions, each once ({time.perf_counter() - begun:.2f} s)"


def check_epoch(items: ItemComposer) -> str:
    """Every clip is visited as often as it has chunks."""
    order = items.order
    begun = time.perf_counter()
    seen = np.zeros(len(items.store.clips), np.int64)
    windows = -(-(len(items.store.table.bounds) - 1) // order.window)
    for window in range(windows):
        numbers = order._shuffled(3, window)
        seen += np.bincount(numbers, minlength=len(seen))
    assert (seen == np.maximum(np.rint(items.store.table.columns["seconds"] / items.chunk_s), 1)).all()
    return f"{seen.sum():,} visits in {windows} windows, every clip as often as it has chunks " \
           f"({time.perf_counter() - begun:.0f} s)"


def worker_memory(items: ItemComposer, options: argparse.Namespace) -> list[float]:
    """MB that each of the forked workers of a rank has of its own."""
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()

    def work(worker: int) -> None:
        before = own_memory()
        stream = batches(items, options, 0, worker)
        for _, batch in zip(range(200), stream, strict=False):
            assert len(batch) == options.batch
        results.put(own_memory() - before)

    workers = [fork.Process(target=work, args=(w,)) for w in range(options.workers)]
    for worker in workers:
        worker.start()
        worker.join()
    return [results.get() for _ in workers]


def _commit() -> str:
    return subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
                          capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
