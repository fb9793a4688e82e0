"""What watching costs: step time with the callbacks of a production run and without, in turns, in one run on a CPU.

    python benchmarks/callbacks.py --preset tiny             # the worst case: nothing is as large as what watches it

Blocks of steps of ``dmd`` take turns: ``bare`` (no callback, no logger), ``averages`` (averaged weights alone, which
are part of training), ``all`` (what a production run has: a logged row each ten steps, MLflow on a server), and
``held`` (the same while that server is stopped and answers nobody). A step lasts from its beginning to the next one's;
the first ten of a block are left out. Wall time and processor time of this process, its threads included, are told
apart, and beside other work both differ from block to block by more than callbacks cost. So their cost is measured
inside of the steps too: the processor time of this thread between the first and the last callback and in the loggers,
and that of the other threads. What is not done at every step is left out of the steps; the probe is timed apart, and
set against the steps between two probes.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning as L
import torch

from benchmarks.watched_dmd import Inside, Last, Seconds, TrackingServer, now, since, watched_dmd
from callbacks.inference import inference
from callbacks.metrics_file import read_rows
from callbacks.mlflow_run import client_of, read_identity
from callbacks.throughput_probe import ThroughputProbe
from pipelines.trainer import build_trainer

ARMS = ("bare", "averages", "all", "held")
LEFT_OUT, PROBE_EVERY = 10, 100
"""First steps of a block that are not measured; steps between the probes of the production presets."""


class Turns(L.Callback):
    """Stands first; at the border of two blocks it changes which callbacks and loggers the trainer has.

    arms: name -> callbacks and loggers. blocks: (arm, each measured step's :data:`Seconds` and those inside).
    """

    def __init__(self, arms: dict[str, tuple[list[Any], list[Any]]], block: int, server: TrackingServer,
                 inside: Inside) -> None:
        self.arms, self.block, self.server, self.inside = arms, block, server, inside
        self.blocks: list[tuple[str, list[Seconds]]] = []
        self._at = now()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        took, step = since(self._at), trainer.global_step
        if step and (step - 1) % self.block >= LEFT_OUT:
            self.blocks[-1][1].append((*took, self.inside.seconds))
        if step % self.block == 0:
            name = self.turn(step // self.block)
            self.blocks.append((name, []))
            callbacks, loggers = self.arms[name]
            trainer.callbacks, trainer.loggers = [self, *callbacks, Last(self.inside)], loggers
            self.server.signal(signal.SIGSTOP if name == "held" else signal.SIGCONT)
        self.inside.seconds, self._at = 0.0, now()
        self.inside.begin()

    def on_train_batch_end(self, *_: Any) -> None:
        self.inside.begin()

    def turn(self, number: int) -> str:
        """Every second round runs backwards, so that a trend of the machine favours nobody."""
        rounds, place = divmod(number, len(ARMS))
        return ARMS[place if rounds % 2 == 0 else -1 - place]


class Probe(L.Callback):
    """Two probes before the first step; the second one's seconds."""

    def __init__(self, chunks: int) -> None:
        self.probe, self.chunks, self.took = ThroughputProbe(Path(), -1, chunks), chunks, now()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for _ in range(2):
            then = now()
            with inference(trainer, module):
                self.probe._time(module)  # type: ignore[arg-type]
            self.took = since(then)


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="sizes of model and batch: tiny, demo, puppet")
    parser.add_argument("--batch", type=int, default=0, help="samples of a step; 0: the preset's")
    parser.add_argument("--rounds", type=int, default=6, help="how often every arm has its turn")
    parser.add_argument("--block", type=int, default=30, help="steps of a turn, a multiple of ten")
    given = parser.parse_args()
    if given.rounds < 1 or given.block < 20 or given.block % 10:
        parser.error(f"--rounds {given.rounds} --block {given.block}: give at least 1 round, and as a block a multiple "
                     "of ten from 20 on, for the first steps of each turn are left out")
    with tempfile.TemporaryDirectory() as folder, TrackingServer(Path(folder)) as server:
        measure(given, Path(folder) / "runs", server)
    return 0


def measure(given: argparse.Namespace, root: Path, server: TrackingServer) -> None:
    """Train ``dmd``, and print what was measured."""
    steps = given.rounds * given.block * len(ARMS)
    it = watched_dmd(given.preset, root, server.uri, steps,
                     *([f"dmd.batch_size={given.batch}"] if given.batch else []))
    averages: list[Any] = [c for c in it.callbacks if type(c).__name__ == "AveragedWeights"]
    inside = Inside()
    for logger in it.loggers:
        inside.watch(logger)
    everything: tuple[list[Any], list[Any]] = (list(it.callbacks), list(it.loggers))
    turns = Turns({"bare": ([], []), "averages": (averages, []), "all": everything, "held": everything}, given.block,
                  server, inside)
    probe = Probe(it.cfg.callbacks.probe_chunks)
    trainer = build_trainer(it.cfg.trainer, steps, it.folder, [turns, *it.callbacks, probe, Last(inside)], it.loggers)
    trainer.limit_val_batches = 0
    trainer.fit(it.module, datamodule=it.data)
    server.signal(signal.SIGCONT)
    for logger in it.loggers:
        logger.finish("FINISHED")
    parameters = sum(p.numel() for p in it.module.student.parameters()) / 1e6
    print(f"dmd, preset={given.preset}, {parameters:.2f} M parameters in the student, "
          f"{it.cfg.stages.dmd.batch_size or it.cfg.data.batch_size} samples a step, {given.rounds} rounds of "
          f"{given.block} steps, torch {torch.__version__}, one thread")
    print_arms(turns.blocks)
    print_inside(turns.blocks)
    bare = [statistics.median(steps_of(turns.blocks, "bare", which)) for which in (0, 1)]
    share = [probe.took[which] / (PROBE_EVERY * bare[which]) for which in (0, 1)]
    print(f"probe of {probe.chunks} chunks: {probe.took[0]:.2f} s, {probe.took[1]:.2f} s of processor; every "
          f"{PROBE_EVERY} steps: {share[0]:.1%}, {share[1]:.1%} of them")
    rows = [row["step"] for row in read_rows(it.folder / "metrics.jsonl") if "train/critic" in row]
    history = client_of(server.uri).get_metric_history(read_identity(it.folder)["run_id"], "train/critic")
    print(f"rows written {len(rows)}; on the server, which was held {given.rounds} times: "
          f"{len(set(rows) & {m.step for m in history})}, twice: {len(history) - len({m.step for m in history})}")


def steps_of(blocks: list[tuple[str, list[Seconds]]], arm: str, which: int) -> list[float]:
    """Mean step of each of an arm's blocks, as only one in ten writes a row; ``which``: 0 wall, 1 processor time."""
    return [statistics.fmean(step[which] for step in steps) for name, steps in blocks if name == arm and steps]


def print_inside(blocks: list[tuple[str, list[Seconds]]]) -> None:
    """A line per arm: what its callbacks, loggers and threads took inside of the steps, as a share of a bare step."""
    bare = statistics.median(steps_of(blocks, "bare", 1))
    print("| arm | callbacks and loggers, a step | other threads, a step | together, of a bare step |")
    print("|---|---|---|---|")
    for arm in ARMS:
        mine = [statistics.median(steps_of(blocks, arm, which)) for which in range(4)]
        pairs = zip(steps_of(blocks, arm, 1), steps_of(blocks, arm, 2), strict=True)
        others = statistics.median(all_threads - this for all_threads, this in pairs)
        print(f"| {arm} | {1000 * mine[3]:.2f} ms | {1000 * others:.2f} ms | {(mine[3] + others) / bare:.1%} |")


def print_arms(blocks: list[tuple[str, list[Seconds]]]) -> None:
    """A line per arm: median over the rounds, and of its ratio to the bare block of the same round."""
    rows: dict[str, list[str]] = defaultdict(list)
    for which in (0, 1):
        bare = steps_of(blocks, "bare", which)
        for arm in ARMS:
            mine = steps_of(blocks, arm, which)
            ratios = sorted(a / b - 1 for a, b in zip(mine, bare, strict=False))
            rows[arm] += [f"{1000 * statistics.median(mine):.1f} ms",
                          "" if arm == "bare" else f"{statistics.median(ratios):+.1%} ({ratios[0]:+.1%} .. "
                                                   f"{ratios[-1]:+.1%})"]
    print("| arm | wall time of a step | beside bare (lowest .. highest round) | processor time | beside bare |")
    print("|---|---|---|---|---|")
    for arm, cells in rows.items():
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
