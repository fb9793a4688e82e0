"""Two processes are one process with their batches together; a stage goes on with another number of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callbacks import checkpoint_files as files
from pipelines.config.places import CHECKOUT
from tests.integration.test_strategies import LIMIT_S, assert_alike
from tests.small_stage import STAGES

pytestmark = pytest.mark.timeout(3 * LIMIT_S)


def train(root: Path, stage: str, steps: int, *options: str) -> dict[str, Any]:
    """Train to ``steps`` in processes of its own; the newest checkpoint, and what was said."""
    command = [sys.executable, "-m", "tests.small_stage", str(root), stage, f"steps={steps}", *options]
    done = subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    path = files.newest_complete(root / "run" / stage / "checkpoints")
    assert path is not None and files.step_of(path) == steps
    return files.load(path) | {"said": done.stdout}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_learn_what_one_does(stage: str, tmp_path: Path) -> None:
    one = train(tmp_path / "one", stage, 3, "devices=1", "pairs=2")
    two = train(tmp_path / "two", stage, 3, "devices=2")
    assert one["SmallData"] == two["SmallData"] == {"consumed": 12}
    assert_alike(two, one, exact=False)


@pytest.mark.slow
def test_a_stage_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    train(tmp_path, "rollout", 2, "devices=1")
    found = train(tmp_path, "rollout", 4, "devices=2")
    assert found["SmallData"] == {"consumed": 2 * 2 + 2 * 4}
    assert "saved by 1 processes, now there are 2: streams begin afresh" in found["said"]
