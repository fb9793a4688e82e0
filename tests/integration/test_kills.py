"""``tests/kills.py`` in every stage, alone and as two processes with two loader workers each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config.places import CHECKOUT
from pipelines.config.schema import TRAINING


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them share the stages before."""
    return tmp_path_factory.mktemp("kills")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processes, workers", [(1, 0), (2, 2)])
@pytest.mark.parametrize("stage", TRAINING)
def test_a_stage_killed_at_random_moments_ends_as_undisturbed(stage: str, processes: int, workers: int,
                                                              out: Path) -> None:
    command = [sys.executable, "tests/kills.py", f"stage={stage}", f"processes={processes}", f"workers={workers}",
               "kills=3", "preload=1", f"out={out}"]
    done = subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True, check=False)
    assert done.returncode == 0 and "3 kills" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
