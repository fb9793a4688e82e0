"""What a stage's result depends on: a student's setting makes no earlier stage, and no older run, stale."""

from pathlib import Path

import pytest

from pipelines.completion import digest
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.resume import settings
from pipelines.run_directory import RunDirectory


@pytest.mark.parametrize(("stage", "reads"), [("orchestrator", False), ("teacher", False), ("dmd", True),
                                              ("rollout", True)])
def test_the_guided_condition_is_the_students_alone(tmp_path: Path, stage: str, reads: bool) -> None:
    found = []
    for weight in ("1", "4"):
        cfg = compose(parse([f"stage={stage}", "preset=puppet", f"root={tmp_path}",
                             f"diffusion.few_step_guidance={weight}"]))
        directory = RunDirectory.of(cfg)
        found.append((digest(directory, stage, cfg), settings(cfg, stage, directory)))
    (plain, before), (guided, after) = found
    assert (plain != guided) == reads
    assert "diffusion.few_step_guidance" not in before  # as in markers from before there was one
    assert (after.get("diffusion.few_step_guidance") == 4.0) == reads
