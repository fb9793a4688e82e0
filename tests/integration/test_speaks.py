"""The gate in its light form: a small teacher learns four clips by heart and speaks them again through the stream path.

Two characters, two sentences each. The full gate is ``stage=all preset=overfit``: eight clips, a larger model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pipelines.config.places import CHECKOUT

LIGHT = ("prepare.clips=4", "prepare.sentences=2", "prepare.min_s=2.5", "prepare.max_s=3.5", "prepare.edge_s=0.3",
         "data.overfit_clips=4", "data.codec_clips=4", "data.val_items=8",
         "stages.orchestrator.steps=400", "stages.orchestrator.batch_size=16",
         "teacher.steps=800", "teacher.batch_size=8",
         "stages.orchestrator.ema_decay=0.95", "teacher.ema_decay=0.95",
         "diffusion.teacher_steps=12", "evaluate.words=false", "evaluate.clips=1", "evaluate.seconds=2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STAGES = ("prepare", "encode", "orchestrator", "teacher", "evaluate")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What ``evaluate/gate/gate.json`` says."""
    root = tmp_path_factory.mktemp("speaks")
    for stage in STAGES:
        command = [sys.executable, str(CHECKOUT / "pipelines/run.py"), f"stage={stage}", "preset=overfit",
                   f"root={root}", *LIGHT]
        done = subprocess.run(command, text=True, capture_output=True, timeout=1500, check=False,
                              env={**os.environ, "COLUMNS": "200"})
        assert done.returncode == 0 or stage == "evaluate", done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((root / "overfit/evaluate/gate/gate.json").read_text())


def test_it_speaks_what_it_learnt_by_heart_without_its_data(judged: dict) -> None:
    assert "prepare" in judged["facts"]["moved_away"] and any("latents" in p for p in judged["facts"]["moved_away"])
    assert value(judged, "words", "streams") <= value(judged, "words", "codec floor") + 10
    assert value(judged, "words", "streams, other texts") > 50  # what a wrong sentence would score


def test_words_follow_the_text_and_faces_the_picture(judged: dict) -> None:
    failed = [f"{line['name']} = {line['value']}" for line in judged["lines"] if line["passed"] is False]
    assert judged["passed"] and not failed, failed
    limits = {line["name"] for line in judged["lines"] if line["passed"]}
    assert {"texts swapped, text given", "texts swapped, text replaced", "c_a null", "c_a zero",
            "swapped faces nearer to the picture given"} <= limits


def value(judged: dict, group: str, name: str) -> float:
    return next(line["value"] for line in judged["lines"] if (line["group"], line["name"]) == (group, name))
