"""``init=``: a run that begins from an exported character, made by another run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from callbacks.stored_weights import newest_role
from lightning_modules.dmd_module import DmdModule
from lightning_modules.rollout_module import RolloutModule
from lightning_modules.teacher_module import TeacherModule
from pipelines.build import build_module, load_character
from pipelines.completion import digest
from pipelines.config.compose import compose, to_yaml
from pipelines.config.grammar import parse
from pipelines.config.places import SHIPPED
from pipelines.config.recall import recall
from pipelines.config.schema import RunConfig
from pipelines.evaluating.short import speakers_of
from pipelines.origins import init_export, misfits, taken
from pipelines.resume import settings
from pipelines.run import check_inputs, main
from pipelines.run_directory import RunDirectory
from pipelines.shipped import model_folder
from streamchar.codecs.store import load_codec
from streamchar.errors import CheckpointError, InputError
from streamchar.hub import Exported, from_pretrained

SHORT = ("preset=tiny", "trainer.max_steps=1", "prepare.clips=4", "prepare.val_clips=1", "data.val_items=1",
         "data.val_streams=1", "data.codec_clips=3", "diffusion.teacher_steps=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs/base`` with orchestrator and teacher, its export ``model``, and ``runs/next`` with its latents alone."""
    folder = tmp_path_factory.mktemp("init")
    line = (*SHORT, f"root={folder / 'runs'}")
    assert main(["stage=all", "chain=[prepare,encode,orchestrator,teacher]", "name=base", *line]) == 0
    assert main(["stage=export", "name=base", f"out={folder / 'model'}", *line]) == 0
    assert main(["stage=encode", "name=next", f"init={folder / 'model'}",
                 f"data.latents={folder / 'runs/base/encode'}", *line]) == 0
    return folder


def made(root: Path, stage: str, *more: str, name: str = "next") -> tuple[RunConfig, RunDirectory]:
    cfg = compose(parse([f"stage={stage}", f"name={name}", f"root={root / 'runs'}", f"init={root / 'model'}", *SHORT,
                         *more]))
    return cfg, RunDirectory.of(cfg)


def of_export(root: Path, part: str) -> dict[str, Tensor]:
    return Exported(root / "model").weights(part)


def same(module: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    own = module.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[k], weights[k]) for k in own)


def refused(root: Path, capsys: pytest.CaptureFixture[str], *words: str, name: str = "next") -> str:
    assert main([f"name={name}", f"root={root / 'runs'}", *SHORT, *words]) == 2
    return capsys.readouterr().err


def altered(root: Path, target: Path, few_step: bool = False, **values: object) -> Path:
    """The export with another config.json."""
    target.mkdir()
    config = json.loads((root / "model/config.json").read_text())
    config["few_step"] = few_step
    config["spec"] |= values
    (target / "config.json").write_text(json.dumps(config))
    (target / "model.safetensors").symlink_to(root / "model/model.safetensors")
    return target


def test_each_stage_begins_with_the_exports_weights_bit_for_bit(root: Path) -> None:
    denoiser, orchestrator = of_export(root, "denoiser"), of_export(root, "orchestrator")
    for stage in ("orchestrator", "teacher", "dmd", "rollout"):
        module = build_module(stage, *made(root, stage))
        if isinstance(module, (DmdModule, RolloutModule)):
            assert all(same(m, denoiser) for m in (module.teacher, module.critic, module.student))
            assert same(module.character.orchestrator, orchestrator)
        elif isinstance(module, TeacherModule):
            assert same(module.character.denoiser, denoiser) and same(module.character.orchestrator, orchestrator)
        else:
            assert same(module.orchestrator, orchestrator)
        cfg, directory = made(root, stage)
        assert settings(cfg, stage, directory)["made.init"] == Exported(root / "model").digest()


def test_a_run_is_distilled_on_an_export_and_notices_another(root: Path, capsys: pytest.CaptureFixture[str],
                                                             tmp_path: Path) -> None:
    assert main(["stage=dmd", f"init={root / 'model'}", "name=next", f"root={root / 'runs'}", *SHORT]) == 0
    cfg, directory = made(root, "rollout")
    module = build_module("rollout", cfg, directory)
    assert isinstance(module, RolloutModule) and same(module.teacher, of_export(root, "denoiser"))
    stored = newest_role(directory.stage("dmd") / "checkpoints", "student")
    assert same(module.student, stored.weights) and stored.made["init"] == Exported(root / "model").digest()
    student = load_character(directory, cfg)
    assert student.few_step and same(student.orchestrator, of_export(root, "orchestrator"))
    assert same(load_character(directory, cfg, "dmd", "teacher").denoiser, of_export(root, "denoiser"))

    before, weights = digest(directory, "dmd", cfg), load_file(root / "model/model.safetensors")
    shutil.copytree(root / "model", tmp_path / "model")
    save_file({k: v + 1 if k == "denoiser.video_in.weight" else v for k, v in weights.items()},
              tmp_path / "model/model.safetensors")
    told = refused(root, capsys, "stage=dmd", f"init={tmp_path / 'model'}")
    assert "made.init" in told and "another name=" in told
    cfg.init = str(tmp_path / "model")
    assert digest(directory, "dmd", cfg) != before
    with pytest.raises(CheckpointError, match="was trained beside the export .* give the init="):
        load_character(directory, cfg)


@pytest.mark.parametrize("few", [False, True])
def test_an_export_is_judged_itself_where_the_run_has_no_model(root: Path, tmp_path: Path, few: bool) -> None:
    given = f"init={altered(root, tmp_path / 'given', few)}"
    assert main(["stage=encode", "name=judged", given, f"data.latents={root / 'runs/base/encode'}",
                 f"root={root / 'runs'}", *SHORT]) == 0
    cfg, directory = made(root, "evaluate", given, "evaluate.teacher=true", name="judged")
    check_inputs(cfg, directory)
    speaker, *beside = speakers_of(cfg, directory)
    assert speaker.column == ("student" if few else "teacher") and not beside
    assert same(speaker.character.denoiser, of_export(root, "denoiser"))
    assert same(speaker.character.orchestrator, of_export(root, "orchestrator"))
    cfg.diffusion.few_step_guidance = 4.0  # of the run; the export's student knows 1
    cfg.stages.orchestrator.drops.text = cfg.stages.teacher.drops.text = 0.1
    if few:
        assert load_character(directory, cfg).diffusion.few_step_guidance == 1.0
        with pytest.raises(InputError, match="no teacher in it"):
            load_character(directory, cfg, role="teacher")
    else:
        with pytest.raises(InputError, match="never learnt"):
            check_inputs(cfg, directory)
    cfg.diffusion.few_step_guidance = 1.0
    cfg.evaluate.from_stage = "teacher"
    with pytest.raises(InputError, match="stage=teacher"):
        check_inputs(cfg, directory)


def test_a_student_begins_as_an_export_of_the_same_latents_alone(root: Path, tmp_path: Path) -> None:
    few = altered(root, tmp_path / "few", few_step=True)
    cfg, directory = made(root, "dmd", f"student.weights={few}")
    module = build_module("dmd", cfg, directory)
    assert isinstance(module, DmdModule) and same(module.student, of_export(root, "denoiser"))

    config = json.loads((few / "config.json").read_text())
    config["codecs"]["audio_codec"]["fingerprint"] = "0123456789abcdef"
    config["spec"]["clock"]["chunk_frames"] = 33
    (few / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="other latents than this run's") as error:
        build_module("dmd", cfg, directory)
    for said in ("audio: mel 0123456789ab in the export, mel ", "clock.chunk_frames=33 in the export, 17 here",
                 f"data.latents={directory.stage('encode')}"):
        assert said in str(error.value)
    assert "video: " not in str(error.value)


@pytest.mark.slow
def test_later_stages_of_such_a_run_need_not_be_told(root: Path, tmp_path: Path) -> None:
    line = ("name=told", f"root={root / 'runs'}", *SHORT)
    assert main(["stage=encode", f"init={root / 'model'}", f"data.latents={root / 'runs/base/encode'}", *line]) == 0
    for stage in ("dmd", "rollout", "evaluate", "stream"):
        assert main([f"stage={stage}", *line]) == 0
    assert main(["stage=export", f"out={tmp_path / 'student'}", *line]) == 0
    assert same(from_pretrained(tmp_path / "student").orchestrator, of_export(root, "orchestrator"))
    assert "`model`" in (tmp_path / "student/README.md").read_text()


@pytest.mark.parametrize("stage", ["teacher", "dmd", "rollout", "all"])
def test_a_distilled_export_is_refused_where_a_teacher_is_needed(root: Path, tmp_path: Path, stage: str,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    folder = altered(root, tmp_path / "few", few_step=True)
    told = refused(root, capsys, f"stage={stage}", f"init={folder}", name="fresh")
    assert "stage=export name=base from=teacher" in told and f"student.weights={folder}" in told


def test_what_does_not_fit_is_told_with_both_values(root: Path, capsys: pytest.CaptureFixture[str],
                                                    tmp_path: Path) -> None:
    folder = altered(root, tmp_path / "other", size=96)
    told = refused(root, capsys, "stage=dmd", f"init={folder}", "denoiser.layers=3", "window.max_todo=7")
    for said in ("data.size=96 in the export, 48 here", "denoiser.layers=2 in the export, 3 here",
                 "set window.max_todo=6"):
        assert said in told
    told = refused(root, capsys, "stage=dmd", f"init={tmp_path / 'nobody'}")
    assert f"init={tmp_path / 'nobody'}" in told and "stage=export" in told
    told = refused(root, capsys, "stage=teacher", f"init={root / 'model'}", "denoiser.pretrained=/models/wan")
    assert "both give the denoiser's first weights" in told


def test_other_codecs_are_refused_and_encode_takes_the_exports(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("name=own", f"root={root / 'runs'}", *SHORT, "data.codec_clips=2",
            f"data.shards={root / 'runs/base/prepare/shards'}")
    assert main(["stage=encode", *line]) == 0
    told = refused(root, capsys, "stage=dmd", f"init={root / 'model'}", name="own")
    wanted = Exported(root / "model").codecs["video_codec"]["fingerprint"]
    assert f"video: pca {wanted[:12]} in the export" in told and "stage=encode init=" in told
    assert main(["stage=encode", f"init={root / 'model'}", *line]) == 0
    assert load_codec(root / "runs/own/encode/codecs/video").fingerprint == wanted


def test_codecs_that_models_have_learnt_with_are_kept(root: Path, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(root / "runs", tmp_path / "runs")
    run, encode = tmp_path / "runs/base", tmp_path / "runs/base/encode"
    kept = ("complete.json", "config.yaml", "codecs/video/config.json")
    before = {name: (encode / name).read_bytes() for name in kept}
    others = (["data.codec_clips=2"], [f"data.latents={tmp_path / 'runs/fitted/encode'}"])
    line = [f"root={tmp_path / 'runs'}", *SHORT]
    shards = f"data.shards={run / 'prepare/shards'}"
    assert main(["stage=encode", "name=fitted", *line, "data.codec_clips=2", shards]) == 0
    for other in others:
        assert main(["stage=encode", "name=base", *line, *other]) == 2
        told = capsys.readouterr().err
        assert "orchestrator, teacher of the run 'base' learnt with other codecs" in told and "another name=" in told
        assert {name: (encode / name).read_bytes() for name in before} == before  # nothing was touched
    assert main(["stage=encode", "name=base", *line, f"init={root / 'model'}"]) == 0  # whose codecs are the same
    assert (encode / "codecs/video/config.json").read_bytes() == before["codecs/video/config.json"]
    assert main(["stage=encode", "name=base", *line, "init=null"]) == 0
    assert main(["stage=encode", "name=base", *line, "init=null", "data.codec_clips=2", "trainer.resume=never"]) == 0
    assert (encode / "codecs/video/config.json").read_bytes() != before["codecs/video/config.json"]


def test_a_stage_takes_from_the_export_only_what_its_run_has_not_trained(root: Path) -> None:
    both = ("orchestrator", "denoiser")
    wanted = {"prepare": (), "orchestrator": both[:1], "teacher": both, "dmd": both, "rollout": both, "export": both}
    for stage, parts in wanted.items():
        assert taken(*made(root, stage, name="fresh"), stage) == parts
    for stage, parts in {"teacher": both[1:], "dmd": (), "rollout": ()}.items():  # as stage=all goes on in one run
        assert taken(*made(root, stage, name="base"), stage) == parts
        assert taken(*made(root, "all", name="fresh"), stage) == parts
    assert taken(*made(root, "dmd", "teacher.orchestrator_lr_scale=0", name="base"), "dmd") == ()


def test_speech_alone_is_taken_from_a_character_of_other_looks(root: Path, tmp_path: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    given = altered(root, tmp_path / "given", few_step=True, size=96)  # distilled, of other pictures: no obstacle
    part = ["init=null", f"init_speech={given}", "window.motion_latents=2"]
    shards = ["data.codec_clips=2", f"data.shards={root / 'runs/base/prepare/shards'}"]
    line = ("name=voice", f"root={root / 'runs'}", *SHORT, *part, *shards)
    assert main(["stage=encode", *line]) == 0
    codecs, theirs = root / "runs/voice/encode/codecs", Exported(given).codecs
    assert load_codec(codecs / "audio").fingerprint == theirs["audio_codec"]["fingerprint"]
    assert load_codec(codecs / "video").fingerprint != theirs["video_codec"]["fingerprint"]

    wanted: dict[str, tuple[str, ...]] = {"encode": ("audio_codec",), "orchestrator": ("orchestrator",), "teacher": (),
                                          "dmd": (), "stream": ()}
    for stage, parts in wanted.items():
        assert taken(*made(root, stage, *part, name="voice"), stage) == parts
    speaks, looks = of_export(root, "orchestrator"), of_export(root, "denoiser")
    orchestrator = build_module("orchestrator", *made(root, "orchestrator", *part, name="voice"))
    assert same(orchestrator.get_submodule("orchestrator"), speaks)
    for stage in ("dmd", "evaluate"):  # the run's own teacher is meant, never the export
        assert "stage=teacher" in refused(root, capsys, f"stage={stage}", *part, name="voice")
    assert "stage=orchestrator" in refused(root, capsys, "stage=teacher", *part, name="voice")
    told = refused(root, capsys, "stage=orchestrator", *part, "window.max_todo=7", "orchestrator.ffn=32", name="voice")
    for said in (f"init_speech={given} does not fit", "set window.max_todo=6", "orchestrator.ffn="):
        assert said in told
    told = refused(root, capsys, "stage=orchestrator", f"init={root / 'model'}", name="voice")
    assert "video: pca" in told and "audio: " not in told

    fresh = build_module("teacher", *made(root, "teacher", *part, "chain=[encode,teacher]", name="voice"))
    assert isinstance(fresh, TeacherModule) and same(fresh.character.orchestrator, speaks)  # a chain without that stage
    assert not same(fresh.character.denoiser, looks)
    assert main(["stage=orchestrator", *line]) == 0 and main(["stage=teacher", *line]) == 0
    student = build_module("dmd", *made(root, "dmd", *part, name="voice"))
    assert isinstance(student, DmdModule) and not same(student.teacher, looks)
    assert main(["stage=export", f"out={tmp_path / 'own'}", *line]) == 0
    assert "training of its speech began from the weights of `given`" in (tmp_path / "own/README.md").read_text()


def test_the_shipped_puppet_fits_the_preset_that_begins_from_it() -> None:
    line = ["preset=grid", "stage=all", "data.shards=clips"]
    cfg = compose(parse(line))
    export = init_export(cfg)
    assert export is not None and misfits(cfg, export, {"audio_codec", "orchestrator"}) == []
    assert compose(parse([*line, f"init={export.folder}"])).origin == str(export.folder)


def test_a_name_is_the_shipped_character_wherever_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "puppet").mkdir()
    (tmp_path / "puppet/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for key in ("init", "init_speech"):
        for given, folder in (("puppet", SHIPPED / "puppet"), ("./puppet", tmp_path / "puppet")):
            cfg = compose(parse(["preset=tiny", f"{key}={given}"]))
            assert cfg.origin is not None and model_folder(cfg.origin, key) == folder
            assert model_folder(given) == folder


def test_a_run_remembers_the_export_until_told_otherwise(root: Path) -> None:
    words = ["stage=stream", "name=kept", f"root={root / 'runs'}"]
    (root / "runs/kept/dmd").mkdir(parents=True)
    (root / "runs/kept/dmd/config.yaml").write_text(to_yaml(made(root, "dmd")[0]))
    line = parse(words)
    assert "init=" in (recall(line) or "") and compose(line).init == str(root / "model")
    line = parse([*words, "init=null"])
    recall(line)
    assert compose(line).init is None
