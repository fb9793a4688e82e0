"""Stage evaluate on a prepared tiny run with a random character: all numbers come, each beside its no-model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines import build, free_memory
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.config.schema import RunConfig
from pipelines.evaluating import short, syncnets
from pipelines.run_directory import RunDirectory
from pipelines.stages import encode, evaluate, prepare
from streamchar.errors import InputError
from streamchar.evaluation.syncnet_config import SyncNetConfig
from streamchar.evaluation.syncnet_training import train_syncnet
from streamchar.rollout.character import Character
from streamchar.streaming.reading import read_clip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunDirectory]:
    pytest.importorskip("espeakng_loader")
    root = tmp_path_factory.mktemp("runs")
    cfg = compose(parse(["stage=evaluate", "preset=tiny", "name=t", f"root={root}", "evaluate.words=false",
                         "evaluate.clips=2", "evaluate.drift_s=3", "evaluate.seconds=4", "evaluate.teacher=true",
                         "prepare.val_identities=2"]))
    directory = RunDirectory.of(cfg)
    for stage in ("prepare", "encode", "evaluate"):
        directory.stage(stage).mkdir(parents=True)
    prepare.run(cfg, directory)
    encode.run(cfg, directory)
    return cfg, directory


def random_character(directory: RunDirectory, cfg: RunConfig, from_stage: str = "auto", role: str = "ema") -> Character:
    codecs = build.load_codecs(directory)
    spec = build.model_spec(cfg, codecs)
    torch.manual_seed(0)
    return Character(spec.build_denoiser().eval(), spec.build_orchestrator().eval(), spec.clock, spec.window,
                     spec.units(), spec.diffusion, spec.size, codecs.video, codecs.audio, from_stage != "teacher")


def test_report_of_a_model_that_has_learnt_nothing(run: tuple[RunConfig, RunDirectory],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, directory = run
    monkeypatch.setattr(short, "load_character", random_character)
    evaluate.run(cfg, directory)
    folder = directory.stage("evaluate")
    report = json.loads((folder / "report.json").read_text())
    metrics = report["metrics"]
    # what is real must look real to the measures, and the untrained model must not
    assert abs(metrics["eval/sync/lag/real"]) <= 1 and metrics["eval/sync/correlation/real"] > 0.5
    assert metrics["eval/sync/detector_against_true_opening/real"] > 0.85
    assert metrics["eval/identity/relative/codec"] < 0.5 < metrics["eval/identity/relative/student"]
    assert metrics["eval/pointer/error_on_real_sound_words/baseline"] > 0
    frechet = {c: metrics[f"eval/distribution/Frechet_distance_audio_latents/{c}"] for c in ("student", "baseline")}
    assert frechet["student"] > frechet["baseline"]
    assert metrics["eval/speed/real-time_factor/student"] > 0
    page = (folder / "index.html").read_text()
    for row in report["clips"]:
        for path in row["videos"].values():
            assert path in page
            frames, sound, fps = read_clip(folder / path, 16000)
            assert len(sound) == round(len(frames) / fps * 16000)
    assert {"real", "codec", "student", "teacher"} <= set(report["clips"][0]["videos"])
    assert "http" not in page  # nothing is fetched


def test_recordings_that_are_gone_leave_the_codec_floor(run: tuple[RunConfig, RunDirectory],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, directory = run
    monkeypatch.setattr(short, "load_character", random_character)
    shards = directory.stage("prepare") / "shards"
    shards.rename(shards.with_name("moved"))
    try:
        evaluate.run(cfg, directory)
    finally:
        shards.with_name("moved").rename(shards)
    videos = json.loads((directory.stage("evaluate") / "report.json").read_text())["clips"][0]["videos"]
    assert "codec" in videos and "real" not in videos
    assert Path(directory.stage("evaluate") / videos["student"]).is_file()


def test_a_detector_that_is_not_there_is_missed_before_anything_is_streamed(
        run: tuple[RunConfig, RunDirectory], monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, directory = run

    def never(*_: object) -> None:
        raise AssertionError("streamed first")

    monkeypatch.setattr(short, "load_character", random_character)
    monkeypatch.setattr(short, "generate", never)
    with pytest.raises(InputError, match="face mesh"):
        evaluate.run(replace(cfg, evaluate=replace(cfg.evaluate, mouth="mesh")), directory)


def test_clips_that_do_not_fit_into_memory_are_refused_before_anything_is_decoded(
        run: tuple[RunConfig, RunDirectory], monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, directory = run
    monkeypatch.setattr(short, "load_character", random_character)
    monkeypatch.setattr(short, "held_out", None)
    monkeypatch.setattr(free_memory, "free_memory", lambda: 1 << 20)
    with pytest.raises(InputError, match="of 2 clips in every column.*fewer evaluate.clips or evaluate.teacher=false$"):
        evaluate.run(cfg, directory)
    with pytest.raises(InputError, match="a stream of 60 s.*smaller evaluate.stream_s"):
        evaluate.run(replace(cfg, evaluate=replace(cfg.evaluate, protocol="long")), directory)


def test_our_syncnet_is_trained_once_on_the_recorded_clips(run: tuple[RunConfig, RunDirectory], tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, directory = run
    trained = []

    def short_training(clips, fps, rate, config=None, seed=0, progress=None, device="cpu"):
        kept = list(clips)
        trained.append(len(kept))
        return train_syncnet(kept, fps, rate, SyncNetConfig(steps=3), seed, progress, device)

    monkeypatch.setattr(short, "load_character", random_character)
    monkeypatch.setattr(syncnets, "train_syncnet", short_training)
    cfg = replace(cfg, evaluate=replace(cfg.evaluate, syncnet_clips=4, cheats=True, drift_s=0.0, teacher=False))
    evaluate.run(cfg, directory)
    evaluate.run(cfg, directory)
    assert trained == [4]  # the second time it is read back
    report = json.loads((directory.stage("evaluate") / "report.json").read_text())
    rows = {r["name"]: r["values"] for r in report["rows"]}
    assert {"real", "codec", "student", "still", "noise"} <= set(rows["SyncNet, ours: confidence"])
    assert all(0 <= v <= 2 for v in rows["SyncNet, ours: distance"].values())

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for video in sorted((directory.stage("evaluate") / "videos").glob("*-real.mp4")):
        shutil.copy(video, theirs)
        (theirs / f"{video.stem}.txt").write_text("place red at c nine again")
    net = str(directory.stage("evaluate") / "syncnet")
    evaluate.run(replace(cfg, evaluate=replace(cfg.evaluate, folder=str(theirs), cheats=False, mouth="puppet",
                                               syncnet=net)), directory)
    assert trained == [4]  # given clips are measured by the same network
    given = json.loads((directory.stage("evaluate") / "report.json").read_text())
    assert {r["name"]: r["values"] for r in given["rows"]}["SyncNet, ours: confidence"]["given"] == pytest.approx(
        rows["SyncNet, ours: confidence"]["real"], abs=0.1)
