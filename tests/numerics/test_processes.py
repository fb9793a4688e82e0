"""Two processes are one process with their batches together; a stage goes on with another number of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_strategies import assert_alike
from tests.ranks import LIMIT_S, train_apart
from tests.small_stage import STAGES

pytestmark = pytest.mark.timeout(3 * LIMIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_learn_what_one_does(stage: str, tmp_path: Path) -> None:
    one = train_apart(tmp_path / "one", stage, 3, "devices=1", "pairs=2")
    two = train_apart(tmp_path / "two", stage, 3, "devices=2")
    assert one["SmallData"] == two["SmallData"] == {"consumed": 12}
    assert_alike(two, one, exact=False)


@pytest.mark.slow
def test_two_processes_learn_what_one_does_of_samples_without_pictures(tmp_path: Path) -> None:
    """Every third has them: one rank has now one, now none, beside the other's one or two."""
    one = train_apart(tmp_path / "one", "teacher", 3, "devices=1", "pairs=2", "seen=3")
    two = train_apart(tmp_path / "two", "teacher", 3, "devices=2", "seen=3")
    assert_alike(two, one, exact=False)


@pytest.mark.slow
def test_a_stage_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    train_apart(tmp_path, "rollout", 2, "devices=1")
    found = train_apart(tmp_path, "rollout", 4, "devices=2")
    assert found["SmallData"] == {"consumed": 2 * 2 + 2 * 4}
    assert "saved by 1 processes, now there are 2: streams begin afresh" in found["said"]
