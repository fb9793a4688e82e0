"""MLflow's server is killed for a minute in the middle of a run, again and again: what is lost, and what steps cost.

    python benchmarks/tracking_outage.py --preset tiny --rounds 4

``dmd`` is trained with all callbacks and a row each ten steps; an ``mlflow server`` of its own listens on loopback. For
a minute it is there, then all its processes are killed, it is away for a minute, and is started again. Steps while it
comes up are left out, for its start takes the processor from them, as it would not where it has a machine of its own.
At the end every row of ``metrics.jsonl`` is looked for on the server, before and after ``stage=sync-tracking``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning as L
import torch

from benchmarks.watched_dmd import CHECKOUT, Inside, Last, Seconds, TrackingServer, now, since, watched_dmd
from callbacks.metrics_file import read_rows
from callbacks.mlflow_run import client_of, read_identity
from pipelines.trainer import build_trainer

PHASES = ("there", "away", "coming up")
MOST_STEPS = 1_000_000


class Outages(L.Callback):
    """Stands first: kills the server and starts it again by the clock, and ends training after the last round.

    steps: each phase's steps, as (phase, round, :data:`Seconds`, processor time inside of callbacks).
    """

    def __init__(self, server: TrackingServer, rounds: int, seconds: float, inside: Inside) -> None:
        self.server, self.rounds, self.seconds, self.inside = server, rounds, seconds, inside
        self.phase, self.round = "there", 0
        self.steps: list[tuple[str, int, Seconds, float]] = []
        self._at, self._began = now(), now()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step > 10:  # before that, the machine warms up
            self.steps.append((self.phase, self.round, since(self._at), self.inside.seconds))
        else:
            self._began = now()
        self._turn(trainer)
        self.inside.seconds, self._at = 0.0, now()
        self.inside.begin()

    def _turn(self, trainer: L.Trainer) -> None:
        over = since(self._began)[0] >= self.seconds
        if self.phase == "there" and over:
            if self.round == self.rounds:
                trainer.should_stop = True
                return
            self.server.stop()
            self._enter("away")
        elif self.phase == "away" and over:
            self.server.start()
            self._enter("coming up")
        elif self.phase == "coming up" and self.server.answers():
            self.round += 1
            self._enter("there")

    def _enter(self, phase: str) -> None:
        self.phase, self._began = phase, now()
        print(f"step {len(self.steps)}: {phase}", flush=True)

    def on_train_batch_end(self, *_: Any) -> None:
        self.inside.begin()


def main() -> int:
    """Print the tables; returns the exit code: 1 where something was lost or sent twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="sizes of model and batch: tiny, demo, puppet")
    parser.add_argument("--rounds", type=int, default=4, help="how often the server goes away")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is there, and how long it is away")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, TrackingServer(Path(folder)) as server:
        return measure(given, Path(folder) / "runs", server)


def measure(given: argparse.Namespace, root: Path, server: TrackingServer) -> int:
    """Train, print the tables, compare the server with the rows."""
    it = watched_dmd(given.preset, root, server.uri, MOST_STEPS)
    inside = Inside()
    for logger in it.loggers:
        inside.watch(logger)
    outages = Outages(server, given.rounds, given.seconds, inside)
    trainer = build_trainer(it.cfg.trainer, MOST_STEPS, it.folder, [outages, *it.callbacks, Last(inside)], it.loggers)
    trainer.limit_val_batches = 0
    trainer.fit(it.module, datamodule=it.data)
    for logger in it.loggers:
        logger.finish("FINISHED")
    print(f"dmd, preset={given.preset}, {trainer.global_step} steps, torch {torch.__version__}, one thread")
    print_phases(outages.steps)
    lost = compare(it.folder, server.uri, "at the stage's end")
    subprocess.run([sys.executable, str(CHECKOUT / "pipelines/run.py"), "stage=sync-tracking",
                    f"preset={given.preset}", "name=b", f"root={root}", "tracking.kind=mlflow",
                    f"tracking.uri={server.uri}"], check=True)
    return int(compare(it.folder, server.uri, "after stage=sync-tracking") > 0 or lost > 0)


def print_phases(steps: list[tuple[str, int, Seconds, float]]) -> None:
    """A line per phase: its median step, and how the rounds' medians away differ from those beside them."""
    by_phase: dict[str, dict[int, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for phase, number, took, inside in steps:
        by_phase[phase][number].append((*took, inside))
    print("| server | steps | wall time of a step | processor time | of it callbacks, loggers | other threads |")
    print("|---|---|---|---|---|---|")
    watching: dict[str, float] = {}
    for phase in PHASES:
        every = [step for found in by_phase[phase].values() for step in found]
        wall, cpu = (1000 * statistics.median(step[i] for step in every) for i in (0, 1))
        inside, others = (1000 * statistics.fmean(values) for values in zip(
            *((step[3], step[1] - step[2]) for step in every), strict=True))
        watching[phase] = (inside + others) / cpu
        print(f"| {phase} | {len(every)} | {wall:.1f} ms | {cpu:.1f} ms | {inside:.2f} ms | {others:.2f} ms |")
    print(f"watching takes {watching['there']:.2%} of a step's processor time where the server is there, "
          f"{watching['away']:.2%} where it is away")
    for which, name in ((0, "wall"), (1, "processor")):
        ratios = []
        for number, found in by_phase["away"].items():
            beside = [*by_phase["there"][number], *by_phase["there"][number + 1]]
            ratios.append(statistics.median(s[which] for s in found) / statistics.median(s[which] for s in beside) - 1)
        print(f"{name} time away, beside the minutes before and after: median of {len(ratios)} rounds "
              f"{statistics.median(ratios):+.1%} ({min(ratios):+.1%} .. {max(ratios):+.1%})")


def compare(folder: Path, uri: str, when: str) -> int:
    """Print how many values of the rows the server has; returns those that it lacks or has twice."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for row in read_rows(folder / "metrics.jsonl"):
        for name, value in row.items():
            if name not in ("step", "time") and value is not None:
                wanted[name].add(row["step"])
    client, run = client_of(uri), read_identity(folder)["run_id"]
    lost = twice = 0
    for name, steps in wanted.items():
        there = Counter(m.step for m in client.get_metric_history(run, name))
        lost += len(steps - set(there))
        twice += sum(there.values()) - len(there)
    total = sum(len(steps) for steps in wanted.values())
    print(f"{when}: {total} values in {len(set().union(*wanted.values()))} rows of {len(wanted)} metrics; lacking on "
          f"the server {lost}, there twice {twice}; the run is {client.get_run(run).info.status}")
    return lost + twice


if __name__ == "__main__":
    sys.exit(main())
