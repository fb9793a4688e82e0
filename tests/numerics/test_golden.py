"""The loss curves in ``golden/``: the same bits on the same type of machine, the same five digits on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.numerics.golden import FIGURES, STEPS, curve, machine, read
from tests.small_stage import STAGES

SOON = ("orchestrator", "teacher", "dmd")
CASES = [pytest.param(stage, marks=() if stage in SOON else pytest.mark.slow) for stage in STAGES]


@pytest.mark.parametrize("stage", CASES)
def test_a_stage_learns_by_the_golden_numbers(stage: str, tmp_path: Path) -> None:
    wanted, found = read(stage), curve(stage, tmp_path)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    again = "if the change is wanted: python -m tests.numerics.golden"
    if wanted["machine"] == machine():
        assert found == wanted["curve"], again
        return
    for ours, theirs in zip(found, wanted["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5), f"{stage} on another machine; {again}"


def test_the_curves_hold_what_every_stage_is_judged_by() -> None:
    for stage in STAGES:
        rows = read(stage)["curve"]
        assert len(rows) == STEPS and all("train/loss" in row for row in rows)
        figures = {name for row in rows for name in row} - {"step"}
        assert figures <= set(FIGURES)
        assert ("train/generator" in figures) == (stage in ("dmd", "rollout"))
