"""Kills a training stage again and again, at random moments, and compares its end with that of an undisturbed run.

    python tests/kills.py stage=rollout kills=20 processes=1 workers=0 seed=0 out=SCRATCH

Every run is the command line itself (``pipelines/run.py``, ``preset=tiny`` with the options below), on latents that are
made once in ``out``; with ``preload=1`` its processes are forked from an interpreter that has imported the packages
already, so that moments fall into the run and not into imports. A moment is drawn uniformly from the processor time
that the undisturbed run took (so that a busy machine changes nothing); then SIGKILL goes to the whole process group,
loader workers and all ranks, and the same command is started again, until it ends by itself. Its last checkpoint
(weights, moments, averages, counters, data position, memories of every rank) must have the same bits as the undisturbed
one's, and ``metrics.jsonl`` the same rows. Prints a table; exit code 1 on any difference.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from callbacks import checkpoint_files as files  # noqa: E402
from callbacks.metrics_file import read_rows  # noqa: E402
from pipelines.config.places import CHECKOUT  # noqa: E402
from pipelines.config.schema import STAGES, TRAINING  # noqa: E402
from tests.ranks import become, free_port  # noqa: E402
from tests.same_state import checkpoint_differences, metrics_differences  # noqa: E402

STEPS = 16
BEFORE = STAGES[:5]
COMMON = ["preset=tiny", "trainer.accelerator=cpu", "callbacks.samples_every=0", "callbacks.probe_every=0",
          "data.val_items=1", "data.val_streams=1"]
# Rates at which a lost update shows; every stage changes what it does in its middle.
OWN = {
    "orchestrator": ["stages.orchestrator.optimizer.lr=0.001"],
    "teacher": ["teacher.optimizer.lr=0.001", "teacher.optimizer.kind=adamw", "teacher.orchestrator_lr_scale=0.5"],
    "dmd": ["dmd.trajectory.steps=4", "dmd.generator_from=6", "dmd.generator.lr=0.001", "dmd.critic.lr=0.001"],
    "rollout": ["rollout.generator.lr=0.001", "rollout.critic.lr=0.001", "rollout.critic.kind=adamw",
                "rollout.reset_chunks=16"]}


@dataclass
class Options:
    """What ``key=value`` on the command line sets."""

    stage: str = "rollout"
    kills: int = 20
    processes: int = 1
    workers: int = 0
    seed: int = 0
    preload: int = 0
    out: Path = field(default_factory=lambda: Path("runs/kills"))

    @classmethod
    def read(cls, arguments: list[str]) -> Options:
        """Options from the command line; exits with a message for what is not one."""
        pairs = dict(a.split("=", 1) for a in arguments if "=" in a)
        unknown = sorted(set(pairs) - set(cls.__dataclass_fields__)) + [a for a in arguments if "=" not in a]
        if unknown or pairs.get("stage", "rollout") not in TRAINING:
            raise SystemExit(f"{' '.join(arguments)}: stage={'|'.join(TRAINING)} and kills, processes, workers, seed, "
                             "preload, out are the options, as key=value")
        numbers = {k: int(v) for k, v in pairs.items() if k not in ("stage", "out")}
        return cls(pairs.get("stage", "rollout"), out=Path(pairs.get("out", "runs/kills")).resolve(), **numbers)


def arguments(root: Path, name: str, stage: str, *options: str) -> list[str]:
    """The command line of a run."""
    return [str(CHECKOUT / "pipelines" / "run.py"), f"stage={stage}", f"root={root}", f"name={name}", *COMMON, *options]


def start(command: list[str], log: Path) -> int:
    """Start the command line in a process group of its own, its output added to ``log``; its process id."""
    with log.open("ab") as out:
        return subprocess.Popen([sys.executable, *command], stdout=out, stderr=subprocess.STDOUT,
                                start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}).pid


def fork(command: list[str], log: Path, processes: int) -> int:
    """The same from this interpreter, which has imported what the command needs; all ranks are of one group."""
    sys.stdout.flush()
    port = free_port()
    if child := os.fork():
        return child
    os.setsid()
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    rank = next((rank for rank in range(1, processes) if not os.fork()), 0)
    if processes > 1:
        become(rank, port)
    sys.argv = command
    code = main_of_run(command[1:])
    if code and processes > 1:
        os.killpg(0, signal.SIGKILL)  # the others wait for this one
    os._exit(code)


def main_of_run(options: list[str]) -> int:
    """``pipelines/run.py`` with an exit code in every case."""
    from pipelines.run import main as run

    try:
        return run(options)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def processor_time(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end(process: int, reached: Callable[[int], bool] = lambda process: False) -> int | None:
    """Wait for a process, or kill its group as soon as ``reached(process)``; its exit code, None where killed."""
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if reached(process):
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.005)


def where(folder: Path) -> str:
    """What a killed run was at, as its folder tells."""
    unfinished = [p for p in folder.glob("checkpoints/step_*") if not (p / files.MARKER).exists()]
    rows = read_rows(folder / "metrics.jsonl")
    at = f"after step {rows[-1]['step']}" if rows else "before step 0's row"
    return f"saving {unfinished[0].name}" if unfinished else at


def memory_chunk(checkpoint: Path | None) -> int | None:
    """Chunks in the memory of a checkpoint's persistent streams, the least of all ranks; None without any."""
    if checkpoint is None:
        return None
    chunks = [files.load(checkpoint, f.name)["extra"].get("memory", {}).get("chunk")
              for f in checkpoint.glob("rank_*.pt")]
    return None if None in chunks or not chunks else min(chunks)


class Trials:
    """The undisturbed run, and runs of the same command that are killed."""

    def __init__(self, options: Options) -> None:
        o = self.o = options
        self.kind = f"{o.stage}-{o.processes}p-{o.workers}w"
        self.options = [*OWN[o.stage], f"stages.{o.stage}.steps={STEPS}", "trainer.ckpt_every=2",
                        f"trainer.devices={o.processes}", f"data.num_workers={o.workers}"]
        self.random = random.Random(f"{o.seed} {self.kind}")
        self.killed = 0
        self.start = start
        if o.preload:
            import pipelines.stages.train  # noqa: F401

            self.start = partial(fork, processes=o.processes)
        o.out.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Make what the stage needs, once for all kinds of runs."""
        chain = f"chain=[{','.join(BEFORE)}]"
        done = all((self.o.out / "made" / stage / "complete.json").exists() for stage in BEFORE)
        if not done and end(start(arguments(self.o.out, "made", "all", chain), self.o.out / "made.log")):
            raise SystemExit(f"the stages before could not be made: see {self.o.out / 'made.log'}")

    def run(self, folder: Path, reached: Callable[[int], bool]) -> int | None:
        """Run the stage in ``folder``; its exit code, None where it was killed."""
        name = folder.parent.name
        return end(self.start(arguments(self.o.out, name, self.o.stage, *self.options),
                              self.o.out / f"{name}.log"), reached)

    def fresh(self, name: str) -> Path:
        """A run that shares the stages before with ``made``; returns the folder of its stage."""
        home = self.o.out / name
        if home.exists():
            raise SystemExit(f"{home} is there already: give another seed= or out=")
        home.mkdir()
        for stage in BEFORE[:STAGES.index(self.o.stage)]:
            (home / stage).symlink_to(self.o.out / "made" / stage)
        return home / self.o.stage

    def undisturbed(self) -> float:
        """Run to the end in one go; the seconds of processor time of its first process."""
        self.whole, used = self.fresh(f"{self.kind}-s{self.o.seed}-whole"), 0.0

        def note(process: int) -> bool:
            nonlocal used
            used = processor_time(process)
            return False

        if self.run(self.whole, note):
            raise SystemExit(f"the undisturbed run failed: see {self.o.out / self.whole.parent.name}.log")
        return used

    def trial(self, number: int, seconds: float) -> list[str]:
        """Kill and start again until the run has ended; what differs from the undisturbed one."""
        folder = self.fresh(f"{self.kind}-s{self.o.seed}-{number}")
        while True:
            moment = self.random.uniform(0, seconds) if self.killed < self.o.kills else float("inf")
            code = self.run(folder, lambda process, moment=moment: processor_time(process) > moment)
            if code is not None:
                break
            self.killed += 1
            newest = files.newest_complete(folder / "checkpoints")
            print(f"| {number} | {self.killed} | {moment:.1f} s | {where(folder)} | "
                  f"{newest.name if newest else 'the start'} | {memory_chunk(newest)} |", flush=True)
        if code:
            return [f"exit code {code}: see {self.o.out / folder.parent.name}.log"]
        return checkpoint_differences(folder, self.whole) + metrics_differences(folder, self.whole)


def main() -> int:
    """Run until enough have been killed; 1 where any end differs."""
    options = Options.read(sys.argv[1:])
    trials = Trials(options)
    trials.prepare()
    seconds = trials.undisturbed()
    newest = files.newest_complete(trials.whole / "checkpoints")
    print(f"{trials.kind}: undisturbed in {seconds:.1f} s of processor time, {STEPS} steps, chunks in its last memory: "
          f"{memory_chunk(newest)}\n| run | kill | after | at | goes on from | memory's chunks there |\n{'|---' * 6}|")
    found, number = [], 0
    while trials.killed < options.kills:
        number += 1
        wrong = trials.trial(number, seconds)
        print(f"run {number}: {'identical' if not wrong else '; '.join(wrong[:5])}", flush=True)
        found += wrong
    print(f"{trials.kind}: {trials.killed} kills in {number} runs, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
