"""The rollout of the tiny preset on two nodes under every kind of trouble: it must end as if there had been none.

After each, checkpoints and metrics are those of the uninterrupted run bit for bit, and MLflow holds one run, FINISHED,
with every step once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from callbacks import checkpoint_files as files
from tests.same_state import checkpoint_differences, metrics_differences
from tests.slurm.cluster import Cluster, end_process, wait_for
from tests.slurm.tiny_run import CHECKOUT, EVERYWHERE, STEPS, Job, submit_rollout, without_rollout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def rank_process(job: str, rank: int) -> int:
    """The Python process of a job's rank."""
    def look() -> int:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                told = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if (f"SLURM_JOB_ID={job}".encode() in told and f"SLURM_PROCID={rank}".encode() in told
                    and b"SLURM_STEP_ID=0" in told and b"pipelines/run.py" in command):
                return int(folder.name)
        return 0

    return wait_for(f"rank {rank} of job {job}", look)


def usr1(job: Job) -> None:
    job.cluster.run("scancel", "--signal=USR1", job.number)


def term(job: Job) -> None:
    job.cluster.run("scancel", "--signal=TERM", job.number)


def time_limit(job: Job) -> None:
    """Slurm itself sends USR1 once the end is less than five minutes away."""
    job.cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=5")
    wait_for("Slurm's warning", lambda: "SIGUSR1: stopping" in job.said())
    wait_for("the requeue", lambda: job.cluster.state(job.number) == "PENDING")
    job.cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=60")


def sigkill_of_a_rank(job: Job) -> None:
    end_process(rank_process(job.number, 1), signal.SIGKILL)


def sigkill_of_the_first_rank(job: Job) -> None:
    end_process(rank_process(job.number, 0), signal.SIGKILL)


def death_of_a_node(job: Job) -> None:
    victim = rank_process(job.number, 1)
    node = next(part for part in (Path("/proc") / str(victim) / "environ").read_bytes().decode().split("\0")
                if part.startswith("SLURMD_NODENAME=")).split("=")[1]
    daemon = int((job.cluster.folder / f"slurmd.{node}.pid").read_text())
    end_process(daemon, signal.SIGKILL)
    end_process(victim, signal.SIGKILL)
    job.cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=died")
    wait_for("the requeue", lambda: job.cluster.state(job.number) == "PENDING")
    job.cluster.start_node(node)  # it registers, and is taken back
    wait_for(f"{node} to be idle", lambda: job.cluster.run("sinfo", "-h", "-n", node, "-o", "%T").strip() == "idle")


TROUBLES: dict[str, Callable[[Job], None]] = {
    "USR1": usr1, "TERM": term, "the time limit": time_limit, "SIGKILL of rank 1": sigkill_of_a_rank,
    "SIGKILL of rank 0": sigkill_of_the_first_rank, "a node that dies": death_of_a_node}


def assert_one_finished_run(root: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()],
                              "attributes.run_name = 'r/rollout'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    steps = [m.step for m in client.get_metric_history(runs[0].info.run_id, "train/loss")]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_rollout_ends_as_if_nothing_had_been(chained, cluster: Cluster, tmp_path: Path, trouble: str,
                                             record_property) -> None:
    whole, _ = chained
    root = without_rollout(whole, tmp_path / "root")
    job = submit_rollout(cluster, root)
    job.wait_step(7)
    TROUBLES[trouble](job)
    cluster.release(job.number)
    assert job.end() == "COMPLETED", job.said()
    assert cluster.job(job.number)["Restarts"] == "1", job.said()
    assert checkpoint_differences(root / "r/rollout", whole / "r/rollout") == []
    assert metrics_differences(root / "r/rollout", whole / "r/rollout") == []
    assert_one_finished_run(root)
    record_property("trouble", trouble)


def test_a_second_job_of_the_same_name_refuses(chained, cluster: Cluster, tmp_path: Path) -> None:
    whole, _ = chained
    root = without_rollout(whole, tmp_path / "root")
    one_node = ("--nodes=1", *EVERYWHERE)
    first = submit_rollout(cluster, root, options=one_node)
    first.wait_step(1)
    second = submit_rollout(cluster, root, options=(*one_node, "--job-name=second"))
    second.out = root.with_name("root-rollout.out")
    assert second.end() == "FAILED" and cluster.job(second.number)["ExitCode"] == "2:0"
    assert f"is being worked on by job {first.number}" in second.said()
    assert first.end() == "COMPLETED", first.said()


def test_one_member_of_an_array_is_queued_again_alone(chained, cluster: Cluster, tmp_path: Path) -> None:
    whole, _ = chained
    root = tmp_path / "root"
    for name in ("a0", "a1"):
        without_rollout(whole, root, name)
    job = submit_rollout(cluster, root, "name=a%a", options=("--array=0-1", "--nodes=1", *EVERYWHERE))
    outs = [Job(cluster, f"{job.number}_{i}", root.with_name(f"root-rollout-{i}.out")) for i in (0, 1)]
    for member in outs:
        member.wait_step(3)
    usr1(outs[1])  # the last member, whose number is the array's
    cluster.release(outs[1].number)
    assert [member.end() for member in outs] == ["COMPLETED", "COMPLETED"], outs[1].said()
    assert [cluster.job(member.number)["Restarts"] for member in outs] == ["0", "1"]
    assert checkpoint_differences(root / "a0/rollout", root / "a1/rollout") == []
    assert metrics_differences(root / "a0/rollout", root / "a1/rollout") == []


HANG = """#!/usr/bin/env bash
#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append
cd {checkout}
source slurm/environment.sh
launch {root}/run/teacher/checkpoints -m tests.fake_stage {root} steps=12 hang=5 hang_minutes=0.1 strategy=ddp
"""


def test_a_rank_that_hangs_leaves_all_stacks_and_the_job_is_queued_again(cluster: Cluster, tmp_path: Path,
                                                                         out: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(HANG.format(checkout=CHECKOUT, root=tmp_path / "root"))
    number = cluster.run("sbatch", "--parsable", f"--output={out}", str(script)).strip()
    job = Job(cluster, number, out)
    wait_for("the requeue", lambda: f"job {number} ended with code 1 after a new checkpoint" in job.said(), 300)
    stacks = [(tmp_path / f"root/run/teacher/stacks/rank_0000{rank}.txt").read_text() for rank in (0, 1)]
    assert all("training_step" in stack for stack in stacks) and "in wait" in stacks[1]
    cluster.release(number)
    assert job.end() == "COMPLETED", job.said()
    assert files.step_of(files.newest_complete(tmp_path / "root/run/teacher/checkpoints")) == 12
