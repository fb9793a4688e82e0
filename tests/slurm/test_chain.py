"""The whole chain of the tiny preset, submitted by ``slurm/chain.sh`` to two nodes."""

from __future__ import annotations

import json

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.tiny_run import CHECKOUT, SETTINGS, TWO_NODES, Job, without_rollout

STAGES = ["prepare", "encode", "orchestrator", "teacher", "dmd", "rollout", "evaluate"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_chain_runs_stage_after_stage(chained, cluster: Cluster, record_property) -> None:
    record_property("trouble", ("none: the whole chain by `slurm/chain.sh`",
                                "every stage begins after the former's end and completes"))
    root, jobs = chained
    assert [stage for stage, _, _ in jobs] == STAGES
    waits = ["nothing", *(f"job {number} ({stage})" for stage, number, _ in jobs[:-1])]
    assert [wait for _, _, wait in jobs] == waits
    ends = [cluster.job(number) for _, number, _ in jobs]
    assert [end["JobState"] for end in ends] == ["COMPLETED"] * len(jobs)
    assert all(before["EndTime"] <= after["StartTime"] for before, after in zip(ends, ends[1:], strict=False))
    assert all(json.loads((root / "r" / stage / "complete.json").read_text())["stage"] == stage for stage in STAGES)


def test_what_follows_a_failed_stage_does_not_start(cluster: Cluster, chained, tmp_path,
                                                    record_property) -> None:
    record_property("trouble", ("a stage of the chain fails", "those after it are cancelled"))
    root, _ = chained
    broken = without_rollout(root, tmp_path / "broken")
    (broken / "r" / "dmd" / "checkpoints").rename(broken / "r" / "dmd" / "lost")
    said = cluster.run("slurm/chain.sh", *TWO_NODES, f"--output={tmp_path}/%x.out", *SETTINGS, f"root={broken}",
                       "from=rollout", cwd=CHECKOUT).split("\n")
    rollout, evaluate = (Job(cluster, line.split()[2], tmp_path / f"streamchar-{line.split()[0]}.out")
                         for line in said if line)
    assert rollout.end() == "FAILED" and "stage=dmd of the run 'r' makes it" in rollout.said()
    assert evaluate.end() == "CANCELLED" and not evaluate.out.exists()
