"""A sweep of two members, submitted by ``slurm/sweep.sh``: one is stopped in its middle and goes on in its own run."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.tiny_run import CHECKOUT, EVERYWHERE, Job

STEPS = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_members_run_beside_one_another_under_one_run(chained, cluster: Cluster, tmp_path: Path) -> None:
    root, _ = chained
    sweep_of_two(cluster, root, tmp_path)


def sweep_of_two(cluster: Cluster, root: Path, folder: Path) -> None:
    """Sweep dmd of the run ``r`` in ``root``."""
    file = folder / "rates.yaml"
    file.write_text("stage: dmd\ngrid: {dmd.critic.lr: [1e-3, 2e-3]}\n")
    said = cluster.run("slurm/sweep.sh", str(file), "--nodes=1", *EVERYWHERE, f"--output={folder}/%a.out",
                       "preset=tiny", "name=r", f"root={root}", f"dmd.steps={STEPS}", "trainer.ckpt_every=2",
                       "tracking.kind=mlflow", cwd=CHECKOUT)
    lines = [line.split() for line in said.splitlines()]
    assert [line[0] for line in lines] == ["r-rates-0", "r-rates-1"] and all(line[1] == "job" for line in lines)
    members = [Job(cluster, line[2], folder / f"{i}.out") for i, line in enumerate(lines)]
    members[1].wait_step(7)
    cluster.run("scancel", "--signal=USR1", members[1].number)
    cluster.release(members[1].number)
    assert [member.end() for member in members] == ["COMPLETED", "COMPLETED"], members[1].said()
    assert [cluster.job(member.number)["Restarts"] for member in members] == ["0", "1"]

    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    above = [run for run in runs if run.info.run_name == "r-rates"]
    assert len(above) == 1 and above[0].data.params["members"] == "2"
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == above[0].info.run_id]
    assert sorted((r.info.run_name, r.info.status, float(r.data.params["stages.dmd.critic.lr"])) for r in below) == [
        ("r-rates-0/dmd", "FINISHED", 1e-3), ("r-rates-1/dmd", "FINISHED", 2e-3)]
    for run in below:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
        assert steps == list(range(1, STEPS + 1))
