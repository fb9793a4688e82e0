"""What a stage's result depends on: a student's setting makes no earlier stage, and no older run, stale."""

from pathlib import Path

import pytest

from pipelines.completion import digest
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.config.schema import TRAINING
from pipelines.resume import settings
from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError


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


@pytest.mark.parametrize("stage", ["encode", "orchestrator", "inspect"])
def test_words_said_again_count_only_where_there_are_any(tmp_path: Path, stage: str, monkeypatch) -> None:
    def found(*options: str) -> str:
        cfg = compose(parse([f"stage={stage}", "preset=puppet", "init_speech=null", f"root={tmp_path}", *options]))
        return digest(RunDirectory.of(cfg), stage, cfg)

    assert found() == found("data.respoken.switch_p=0.1") != found("data.respoken.times=1")
    for further in ("switch_p=0.1", "speeds=[1.0]", "sentences=2", "pause_s=0.1"):
        assert found("data.respoken.times=1") != found("data.respoken.times=1", f"data.respoken.{further}")
    seen: list[str] = []
    monkeypatch.setattr("pipelines.completion.json.dumps", lambda values, **_: seen.append(str(values)) or "")
    found()
    assert "respoken" not in seen[0]  # as in markers from before there was such a setting


def test_a_checkpoint_from_before_words_were_said_again_goes_on(tmp_path: Path) -> None:
    for options, named in (((), False), (("data.respoken.times=1",), True)):
        cfg = compose(parse(["stage=teacher", "preset=puppet", f"root={tmp_path}", *options]))
        assert any("respoken" in key for key in settings(cfg, "teacher", RunDirectory.of(cfg))) == named


@pytest.mark.parametrize("stage", ["encode", "orchestrator", "teacher", "dmd", "rollout", "inspect"])
def test_what_the_teacher_hears_of_words_said_again_is_its_own_alone(tmp_path: Path, stage: str, monkeypatch) -> None:
    found, seen = [], []
    for share in ("0", "0.25"):
        cfg = compose(parse([f"stage={stage}", "preset=puppet", "init_speech=null", f"root={tmp_path}",
                             "data.respoken.times=1", f"data.respoken.joint_share={share}"]))
        directory = RunDirectory.of(cfg)
        found.append((digest(directory, stage, cfg), settings(cfg, stage, directory) if stage in TRAINING else {}))
    (plain, before), (joint, after) = found
    assert (plain != joint) == (before != after) == (stage == "teacher")
    assert not any("joint_share" in key for key in before)
    monkeypatch.setattr("pipelines.completion.json.dumps", lambda values, **_: seen.append(str(values)) or "")
    cfg.data.respoken.joint_share = 0.0
    digest(directory, stage, cfg)
    assert "joint_share" not in seen[0] and "switch_p" in seen[0]  # as in markers from before there was one


@pytest.mark.parametrize(("stage", "reads"), [("encode", False), ("orchestrator", True), ("teacher", True),
                                              ("dmd", False), ("rollout", False), ("inspect", True)])
def test_where_sound_alone_starts_counts_only_where_it_is_heard(tmp_path: Path, stage: str, reads: bool,
                                                                monkeypatch) -> None:
    found, seen = [], []
    for share in ("0", "0.5"):
        cfg = compose(parse([f"stage={stage}", "preset=puppet", "init_speech=null", f"root={tmp_path}",
                             f"data.anywhere_p={share}"]))
        directory = RunDirectory.of(cfg)
        found.append((digest(directory, stage, cfg), settings(cfg, stage, directory) if stage in TRAINING else {}))
    (plain, before), (anywhere, after) = found
    assert (plain != anywhere) == reads and (before != after) == (reads and stage != "inspect")
    assert "data.anywhere_p" not in before
    monkeypatch.setattr("pipelines.completion.json.dumps", lambda values, **_: seen.append(str(values)) or "")
    cfg.data.anywhere_p = 0.0
    digest(directory, stage, cfg)
    assert "anywhere_p" not in seen[0]  # as in markers from before there was one


@pytest.mark.parametrize("stage", ["orchestrator", "teacher", "dmd", "rollout"])
def test_how_often_a_stage_is_validated_and_compiling_change_nothing_that_is_made(tmp_path: Path, stage: str) -> None:
    found = []
    for more in ([], [f"stages.{stage}.val_every=7", f"stages.{stage}.compile=true"]):
        cfg = compose(parse([f"stage={stage}", "preset=demo", f"root={tmp_path}", *more]))
        found.append((digest(RunDirectory.of(cfg), stage, cfg), settings(cfg, stage, RunDirectory.of(cfg))))
    assert found[0] == found[1]


def test_one_draw_is_what_was_before_there_were_several(tmp_path: Path) -> None:
    found = []
    for draws in ("1", "2"):
        cfg = compose(parse(["stage=orchestrator", "preset=demo", f"root={tmp_path}",
                             f"stages.orchestrator.draws={draws}"]))
        found.append(settings(cfg, "orchestrator", RunDirectory.of(cfg)).get("stages.orchestrator.draws"))
    assert found == [None, 2]


def test_the_best_is_judged_at_checkpoints_in_stages_with_validations_of_their_own_too() -> None:
    options = ["stage=dmd", "preset=demo", "trainer.best=eval/student_energy_audio", "trainer.ckpt_every=40",
               "trainer.val_every=80"]
    compose(parse([*options, "stages.dmd.val_every=120", "stages.rollout.val_every=7"]))
    with pytest.raises(InputError, match="stages.dmd.val_every=60 must be a multiple of trainer.ckpt_every=40"):
        compose(parse([*options, "stages.dmd.val_every=60"]))
    with pytest.raises(InputError, match="stages.dmd.val_every=-1 must not be negative"):
        compose(parse(["stage=dmd", "preset=demo", "stages.dmd.val_every=-1"]))
