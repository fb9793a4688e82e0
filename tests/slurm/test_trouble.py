"""The rollout of the tiny preset on two nodes under every kind of trouble: it must end as if there had been none.

After each, checkpoints and metrics are those of the uninterrupted run bit for bit, and MLflow holds one run, FINISHED,
with every step once.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
import pytest

from tests.same_state import checkpoint_differences, metrics_differences
from tests.slurm.cluster import Cluster, end_process, wait_for
from tests.slurm.tiny_run import EVERYWHERE, STEPS, Job, submit_hanging, submit_rollout, without_rollout
from tests.slurm.trouble_table import SAME

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


def ask(job: Job, number: str) -> None:
    job.cluster.run("scancel", f"--signal={number}", job.number)


def usr1(job: Job) -> None:
    ask(job, "USR1")


def term(job: Job) -> None:
    ask(job, "TERM")


@contextmanager
def saving(job: Job) -> Iterator[int]:
    """Rank 0, stopped in the middle of a save for as long as this lasts."""
    process = rank_process(job.number, 0)

    def stopped_there() -> bool:
        if not list(job.checkpoints.glob("*.part")):
            return False
        os.kill(process, signal.SIGSTOP)
        wait_for("the stop", lambda: Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
        if list(job.checkpoints.glob("*.part")):
            return True
        os.kill(process, signal.SIGCONT)  # it was faster
        return False

    wait_for("a save", stopped_there, pause=0.001)
    try:
        yield process
    finally:
        end_process(process, signal.SIGCONT)


def usr1_while_saving(job: Job) -> None:
    with saving(job) as process:
        ask(job, "USR1")
        pending = re.compile(r"^(?:Sig|Shd)Pnd:\s*[0-9a-f]*[2367abef]..$", re.MULTILINE)  # the bit of signal 10
        wait_for("the signal", lambda: pending.search(Path(f"/proc/{process}/status").read_text()))


def sigkill_while_saving(job: Job) -> None:
    with saving(job) as process:
        os.kill(process, signal.SIGKILL)


def requeue_while_saving(job: Job) -> None:
    """By an administrator: Slurm itself ends the job."""
    with saving(job):
        job.cluster.run("scontrol", "requeue", job.number)


def more_urgent_job(job: Job) -> None:
    """Slurm preempts: it sends TERM, and would requeue the job by force later."""
    urgent = job.cluster.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--ntasks-per-node=1",
                             "--output=/dev/null", "--wrap=true").strip()
    assert job.cluster.wait_end(urgent)["JobState"] == "COMPLETED"
    assert "SIGTERM: stopping at step" in job.said() or "another rank's signal: stopping" in job.said()


def time_limit(job: Job) -> None:
    """Slurm itself sends USR1 once the end is less than five minutes away, at its next look; rank 0 rests until then,
    and is woken by Slurm, which sends CONT with it."""
    os.kill(rank_process(job.number, 0), signal.SIGSTOP)
    job.cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=5")
    wait_for("Slurm's warning", lambda: "SIGUSR1: stopping" in job.said())
    wait_for("the requeue", lambda: job.cluster.state(job.number) == "PENDING")
    job.cluster.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=60")


def sigkill_of_a_rank(job: Job) -> None:
    end_process(rank_process(job.number, 1), signal.SIGKILL)


def sigkill_of_the_first_rank(job: Job) -> None:
    end_process(rank_process(job.number, 0), signal.SIGKILL)


def full_file_system(job: Job) -> None:
    """Until the job has ended for want of room."""
    filler = job.root / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    wait_for("the requeue", lambda: job.cluster.state(job.number) == "PENDING")
    assert "could not be saved" in job.said() and "training goes on" in job.said()
    filler.unlink()


def hang(job: Job) -> None:
    """Of rank 1, which :mod:`tests.hanging_run` does by itself."""
    wait_for("the requeue", lambda: f"job {job.number} ended with code 1 after a new checkpoint" in job.said(), 600)
    stacks = [(job.root / f"r/rollout/stacks/rank_0000{rank}.txt").read_text() for rank in (0, 1)]
    assert all("training_step" in stack for stack in stacks) and "hanging_run.py" in stacks[1]


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
    wait_for(f"{node} to be idle", lambda: job.cluster.states(node) == ["idle"])


TROUBLES: dict[str, Callable[[Job], None]] = {
    "USR1": usr1, "TERM": term, "the time limit": time_limit, "a more urgent job": more_urgent_job,
    "SIGKILL of rank 1": sigkill_of_a_rank, "SIGKILL of rank 0": sigkill_of_the_first_rank,
    "USR1 while it saves": usr1_while_saving, "SIGKILL of rank 0 while it saves": sigkill_while_saving,
    "scontrol requeue while it saves": requeue_while_saving, "a full file system": full_file_system,
    "rank 1 hangs": hang, "a node that dies": death_of_a_node}


def assert_one_finished_run(root: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()],
                              "attributes.run_name = 'r/rollout'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    steps = [m.step for m in client.get_metric_history(runs[0].info.run_id, "train/loss")]
    assert steps == list(range(1, STEPS + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that can be filled."""
    place = tmp_path / "root"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_rollout_ends_as_if_nothing_had_been(chained, cluster: Cluster, small_disk: Path, trouble: str,
                                             record_property) -> None:
    record_property("trouble", (trouble, SAME))
    whole, _ = chained
    root = without_rollout(whole, small_disk)
    job = submit_hanging(cluster, root) if trouble == "rank 1 hangs" else submit_rollout(cluster, root)
    job.wait_step(7)
    TROUBLES[trouble](job)
    cluster.release(job.number)
    assert job.end() == "COMPLETED", job.said()
    assert cluster.job(job.number)["Restarts"] == "1", job.said()
    assert checkpoint_differences(root / "r/rollout", whole / "r/rollout") == []
    assert metrics_differences(root / "r/rollout", whole / "r/rollout") == []
    assert_one_finished_run(root)


def test_a_second_job_of_the_same_name_refuses(chained, cluster: Cluster, tmp_path: Path,
                                               record_property) -> None:
    record_property("trouble", ("a second job of the same name", "it refuses, the first one goes on"))
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


def test_one_member_of_an_array_is_queued_again_alone(chained, cluster: Cluster, tmp_path: Path,
                                                      record_property) -> None:
    record_property("trouble", ("USR1 for one member of a job array",
                                "it alone is queued again, and ends with what the other has"))
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

