"""The tiny preset's chain on the cluster, made once; its rollout is then begun again under every kind of trouble."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.cluster import Cluster, wait_for

CHECKOUT = Path(__file__).parents[2]
STEPS = 24
SETTINGS = ("preset=tiny", "name=r", f"rollout.steps={STEPS}", "trainer.ckpt_every=2", "tracking.kind=mlflow")
EVERYWHERE = ("--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")
TWO_NODES = ("--nodes=2", *EVERYWHERE)
HANGING = """#!/usr/bin/env bash
#SBATCH --requeue --open-mode=append
cd {checkout}
source slurm/environment.sh
launch {root}/r/rollout/checkpoints -m tests.hanging_run stage=rollout {settings} root={root} trainer.hang_minutes=0.7
"""


@dataclass
class Job:
    """A submitted stage."""

    cluster: Cluster
    number: str
    out: Path
    root: Path = Path()

    @property
    def checkpoints(self) -> Path:
        return self.root / "r" / "rollout" / "checkpoints"

    def said(self) -> str:
        return self.out.read_text() if self.out.exists() else ""

    def wait_step(self, step: int, seconds: float = 300.0) -> None:
        """Wait until this step has been logged in the job's present life."""
        wait_for(f"step {step}: {self.said()[-2000:]}", lambda: f"step {step}/" in self.said(), seconds)

    def end(self) -> str:
        """Wait for the end; its state."""
        return self.cluster.wait_end(self.number, 600)["JobState"]


def submit_chain(cluster: Cluster, root: Path) -> list[tuple[str, str, str]]:
    """``slurm/chain.sh`` for the whole chain; (stage, job, what it waits for) as it prints them."""
    said = cluster.run("slurm/chain.sh", *TWO_NODES, f"--output={root}-%x.out", *SETTINGS, f"root={root}", cwd=CHECKOUT)
    return re.findall(r"^(\w+) +job (\d+) +waits for (.*)$", said, re.MULTILINE)


def submit_rollout(cluster: Cluster, root: Path, *more: str, options: tuple[str, ...] = TWO_NODES) -> Job:
    """The rollout of ``root``'s run as a job of its own."""
    member = "-%a" if any(option.startswith("--array") for option in options) else ""
    out = root.with_name(f"{root.name}-rollout{member}.out")
    number = cluster.run("sbatch", "--parsable", *options, f"--output={out}", "slurm/rollout.sbatch", *SETTINGS,
                         f"root={root}", *more, cwd=CHECKOUT).strip()
    return Job(cluster, number, out, root)


def submit_hanging(cluster: Cluster, root: Path) -> Job:
    """The same, of which one rank hangs once (:mod:`tests.hanging_run`)."""
    out, script = root.with_name(f"{root.name}-rollout.out"), root.with_name("job.sh")
    script.write_text(HANGING.format(checkout=CHECKOUT, root=root, settings=" ".join(SETTINGS)))
    number = cluster.run("sbatch", "--parsable", *TWO_NODES, f"--output={out}", str(script)).strip()
    return Job(cluster, number, out, root)


def without_rollout(root: Path, into: Path, name: str = "r") -> Path:
    """A copy of a run of which only the rollout is missing; returns the new root."""
    shutil.copytree(root / "r", into / name, ignore=lambda folder, names: {"rollout", "evaluate"} & set(names))
    return into
