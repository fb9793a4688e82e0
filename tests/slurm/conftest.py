"""A cluster for the tests of this folder, and the environment of their jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.tiny_run import submit_chain


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "site.env").write_text("export GLOO_SOCKET_IFNAME=lo NCCL_SOCKET_IFNAME=lo\n")
    found = Cluster(folder)
    found.env |= {"STREAMCHAR_SITE": str(folder / "site.env"), "STREAMCHAR_VENV": sys.prefix, "OMP_NUM_THREADS": "1",
                  "PYTHONDONTWRITEBYTECODE": ""}
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a job's output goes."""
    return tmp_path / "job.out"


@pytest.fixture(scope="session")
def chained(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str, str]]]:
    """The tiny preset's chain, run whole: its root and its jobs."""
    root = tmp_path_factory.mktemp("chain") / "root"
    jobs = submit_chain(cluster, root)
    cluster.wait_end(jobs[-1][1], 1800)
    return root, jobs
