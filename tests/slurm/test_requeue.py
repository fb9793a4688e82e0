"""One preemption on a real Slurm: a job that is told to stop is queued again, and ends as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

from tests.same_state import checkpoint_differences
from tests.slurm.cluster import Cluster, wait_for
from tests.small_stage import train

CHECKOUT = Path(__file__).parents[2]
SCRIPT = """#!/usr/bin/env bash
#SBATCH --ntasks=1 --requeue --open-mode=append
cd {checkout}
source slurm/environment.sh
launch {root}/run/rollout/checkpoints -m tests.small_stage {root} rollout steps={steps} ckpt_every=0
"""
STEPS = 16


def test_a_rollout_stopped_by_usr1_is_queued_again_and_ends_the_same(cluster: Cluster, tmp_path: Path,
                                                                     out: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT.format(checkout=CHECKOUT, root=tmp_path / "job", steps=STEPS))
    job = cluster.run("sbatch", "--parsable", f"--output={out}", str(script)).strip()
    wait_for("the third step", lambda: out.exists() and f"step 3/{STEPS}" in out.read_text())
    cluster.run("scancel", "--signal=USR1", job)
    cluster.release(job)
    assert train(tmp_path / "whole", "rollout", STEPS, ckpt_every=0)
    end = cluster.wait_end(job)
    said = out.read_text()
    assert end["JobState"] == "COMPLETED" and end["Restarts"] == "1", said
    assert "SIGUSR1: stopping at step" in said and f"job {job} is queued again" in said
    assert checkpoint_differences(tmp_path / "job/run/rollout", tmp_path / "whole/run/rollout") == []
