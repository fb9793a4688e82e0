"""``stage=prepare recipe=videos|speech`` over a folder with everything that goes wrong, stopped and gone on with."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import weakref
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.clip_reader import read_clips
from datamodules.intake import bundle, production, staging, video_take
from datamodules.intake.config import IntakeConfig
from datamodules.intake.models import ModelPaths
from datamodules.intake.packing import HoldOut, plan_shards
from datamodules.intake.staging import SourceRecord
from datamodules.media import encode_wav
from datamodules.orphans import end_with_parent
from datamodules.quarantine import Quarantine
from datamodules.shards import expand_shards
from pipelines.run import main
from streamchar.errors import DataError, InputError
from tests.intake_fakes import (
    FACE,
    RATE,
    FakeModels,
    draw,
    fake_options,
    rows,
    small_files,
    syllables,
    take_nothing,
    write_video,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def fake_models(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.name:
        monkeypatch.setattr(production, "open_models", FakeModels)


def talker(path: Path, text: str | None = "hello there", speech: tuple[float, float] = (1.4, 3.0),
           times: int = 1) -> Path:
    """A good video of 4 s with its text, or the same several ``times`` one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = np.tile(syllables(4.0, (speech,)), times)
    write_video(path, draw(level, 25.0), level)
    if text is not None:
        path.with_suffix(".txt").write_text(text)
    return path


def report(folder: Path) -> dict:
    found: dict = json.loads((folder / "report.json").read_text())
    return found


def reasons(folder: Path) -> dict[str, str]:
    return {Path(r["file"]).name: r["reason"] for r in rows(folder, "put_aside.jsonl")}


def keys(folder: Path) -> list[str]:
    return [c.key for c in read_clips(expand_shards(folder / "shards"), Quarantine(max_rate=0))]


def spoil(folder: Path) -> dict[str, str]:
    """Recordings that cannot be used, and why."""
    talker(folder / "no_text.mp4", text=None)
    talker(folder / "other_text.mp4", text="unheard words")
    talker(folder / "bad_text.mp4", text="--")
    level = syllables(4.0, ((1.0, 3.0),))
    write_video(folder / "mute.mp4", draw(level, 25.0), None)
    (folder / "mute.txt").write_text("hello")
    write_video(folder / "quiet.mp4", draw(level, 25.0), 0 * level)
    (folder / "quiet.txt").write_text("hello")
    write_video(folder / "elsewhere.mp4", draw(np.roll(level, 4 * RATE // 25), 25.0), level)
    (folder / "elsewhere.txt").write_text("hello there")
    (folder / "letter.mp4").write_text("Dear Sir")
    (folder / "letter.txt").write_text("hello")
    body = (folder / "other_text.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(body[:len(body) // 2])
    (folder / "cut.txt").write_text("hello")
    (folder / "sound.wav").write_bytes(encode_wav((0.5 * level).astype(np.float32), RATE))
    (folder / "sound.txt").write_text("hello")
    return {"no_text.mp4": "no transcript", "other_text.mp4": "text does not fit", "bad_text.mp4": "bad transcript",
            "mute.mp4": "no sound", "quiet.mp4": "no sound", "elsewhere.mp4": "off-screen voice",
            "letter.mp4": "unreadable", "cut.mp4": "unreadable", "sound.wav": "no video"}


def test_bad_recordings_are_put_aside_with_reasons_and_good_ones_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    expected = spoil(tmp_path / "in")
    talker(tmp_path / "in" / "ann" / "a.mp4")
    talker(tmp_path / "in" / "ann" / "b.mp4", text="one two 3 4", times=2)
    index, summary = production.produce("videos", fake_options(tmp_path), tmp_path)
    assert reasons(tmp_path) == expected
    assert summary["reasons"]["no sound"] == 2 and summary["recordings"] == len(expected) + 2
    clips = {c.key: c for c in read_clips(expand_shards(tmp_path / "shards"), Quarantine(max_rate=0))}
    assert set(clips) == {"ann-a-0000", "ann-b-0000", "ann-b-0001"} and index.samples == 3
    a = clips["ann-a-0000"]
    assert a.frames is not None and a.frames.shape[1:] == (3, 64, 64) and a.fps == 25 and a.speaker == "ann"
    assert len(a.wave) == round(len(a.frames) / 25 * RATE)
    assert 0.9 < a.words[0].start < 1.1 and a.words[-1].end < a.seconds  # at most 1 s of silence at both ends
    assert [w.text for k in ("ann-b-0000", "ann-b-0001") for w in clips[k].words] == ["one", "two", "3", "4"]
    assert (tmp_path / "contact_sheet.jpg").is_file()
    made = rows(tmp_path, "clips.jsonl")
    assert {m["key"] for m in made} == set(clips) and made[0]["measured"]["lag"] == 0
    assert report(tmp_path)["meaning"]["no sound"] == "it holds no sound"


def test_a_stopped_run_goes_on_and_makes_no_sample_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        talker(tmp_path / "in" / f"{name}.mp4")
    cfg = fake_options(tmp_path, shard_clips=2, val_share=0.3)
    made: list[str] = []
    take = production.take
    monkeypatch.setattr(production, "take", lambda s, *rest: made.append(s.key) or take(s, *rest))

    def stop(record: SourceRecord, new: bool) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        production.produce("videos", cfg, tmp_path, report=stop)
    assert sorted(p.stem for p in (tmp_path / "sources").glob("*.tar")) == ["a", "b"]
    production.produce("videos", cfg, tmp_path)
    assert made == ["a", "b", "c", "d"]
    assert sorted(keys(tmp_path)) == [f"{n}-0000" for n in "abcd"]
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "shards").glob("*.tar")}
    production.produce("videos", cfg, tmp_path)
    assert made == ["a", "b", "c", "d"]
    assert before == {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "shards").glob("*.tar")}

    talker(tmp_path / "in" / "e.mp4")
    (tmp_path / "in" / "b.txt").write_text("another text")
    (tmp_path / "in" / "c.mp4").unlink()
    production.produce("videos", cfg, tmp_path)
    assert made[4:] == ["b", "e"] and sorted(keys(tmp_path)) == [f"{n}-0000" for n in "abde"]
    production.produce("videos", fake_options(tmp_path, size=32), tmp_path)
    assert made[6:] == ["a", "b", "d", "e"]


def test_filters_name_what_they_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talker(tmp_path / "in" / "a.mp4")
    talker(tmp_path / "in" / "b.mp4", speech=(1.4, 1.6), text="hm")
    strict = {"too short": ({"min_s": 3.8}, ()), "several faces": ({}, (FACE, FACE)), "no face": ({}, None),
              "small face": ({"min_face_px": 60.0}, ()), "blur": ({"min_sharpness": 0.9}, ()),
              "clipping": ({"max_clipped": 0.0}, ())}
    for reason, (options, faces) in strict.items():
        shown = () if faces is None else faces or (FACE,)
        monkeypatch.setattr(production, "open_models", lambda paths, shown=shown: FakeModels(paths, shown))
        if reason == "clipping":
            level = np.where(syllables(4.0, ((1.4, 3.0),)) > 0.3, 2.0, syllables(4.0, ((1.4, 3.0),)))
            write_video(tmp_path / "in" / "a.mp4", draw(level / 2, 25.0), 2 * level)
        with pytest.raises(DataError, match=reason):
            production.produce("videos", fake_options(tmp_path, **{"min_s": 3.2, **options}), tmp_path / reason)
        row = rows(tmp_path / reason, "put_aside.jsonl")[0]
        assert row["reason"] == reason and row["detail"] and 0 <= row["start"] < row["end"], row


def test_clips_with_too_little_speech_are_kept_and_not_judged(tmp_path: Path) -> None:
    level = syllables(4.0, ((1.4, 2.2),))
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", draw(np.roll(level, 4 * RATE // 25), 25.0), level)  # the mouth comes late
    (tmp_path / "in" / "a.txt").write_text("hello")
    _, summary = production.produce("videos", fake_options(tmp_path), tmp_path)
    (made,) = rows(tmp_path, "clips.jsonl")
    assert summary["clips"] == summary["sync_not_judged"] == 1
    assert made["measured"]["sync"] is None and made["measured"]["lag"] is None
    with pytest.raises(DataError, match="off-screen voice"):
        production.produce("videos", fake_options(tmp_path, min_judged_s=0.5), tmp_path)


def test_a_long_recording_keeps_no_clip_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talker(tmp_path / "in" / "a.mp4", text="one two three four five six", times=3)
    made: list[weakref.ref] = []
    alive: list[int] = []
    make = video_take.make_sample

    def watched(*given):
        alive.append(sum(ref() is not None for ref in made))
        sample = make(*given)
        made.append(weakref.ref(sample.still if sample.still.base is None else sample.still.base))
        return sample

    monkeypatch.setattr(video_take, "make_sample", watched)
    monkeypatch.setattr(staging, "MOST_STILLS", 2)
    production.produce("videos", fake_options(tmp_path), tmp_path)
    assert len(made) == 3 and max(alive) <= 1  # the one before, while the next is made
    with Image.open(tmp_path / "sources" / "a.jpg") as row:
        assert row.width == 2 * row.height  # clips 0 and 2: an hour's row would be wider than a JPEG may be


def torn_by(end: str, pools: list[int]) -> type:
    """Pools of processes, noted by their size, each torn down by a decoder that meets a recording whose key ends so."""

    class Pool:
        def __init__(self, workers: int, mp_context: object, initializer: object) -> None:
            assert initializer is end_with_parent  # no worker is left where this process is killed
            self.dead = False
            pools.append(workers)

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, work, source, *rest):
            if self.dead:
                raise BrokenProcessPool
            future: Future = Future()
            self.dead = any(one.key.endswith(end) for one in source.sources())
            if self.dead:
                future.set_exception(BrokenProcessPool())
            else:
                future.set_result(work(source, *rest))
            return future

        def shutdown(self, **options: object) -> None:
            pass

    return Pool


def test_a_process_that_dies_in_a_bundle_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production, "take_speech", take_nothing)
    monkeypatch.setattr(production, "ProcessPoolExecutor", torn_by("00003", []))
    small_files(tmp_path / "in", 10)
    production.produce("speech", fake_options(tmp_path, workers=2), tmp_path)
    assert reasons(tmp_path) == {"00003.mp3": "crashed", "00007.mp3": "no speech"}
    assert len(rows(tmp_path, "clips.jsonl")) == 8


def test_a_process_that_dies_costs_one_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcdef":
        talker(tmp_path / "in" / f"{name}.mp4")

    pools: list[int] = []
    monkeypatch.setattr(production, "ProcessPoolExecutor", torn_by("b", pools))
    production.produce("videos", fake_options(tmp_path, workers=2), tmp_path)
    assert sorted(keys(tmp_path)) == [f"{n}-0000" for n in "acdef"] and reasons(tmp_path) == {"b.mp4": "crashed"}
    assert pools == [2, 1, 2]  # b alone, then the others together again


def test_an_unexpected_failure_costs_one_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        talker(tmp_path / "in" / f"{name}.mp4")
    whole = production.take_video

    def odd(source, cfg, models):
        if source.key == "a":
            raise ZeroDivisionError("odd")
        return whole(source, cfg, models)

    monkeypatch.setattr(production, "take_video", odd)
    production.produce("videos", fake_options(tmp_path), tmp_path)
    assert reasons(tmp_path) == {"a.mp4": "crashed"} and keys(tmp_path) == ["b-0000"]
    assert "ZeroDivisionError: odd" in rows(tmp_path, "put_aside.jsonl")[0]["detail"]


def test_missing_models_are_told_before_anything_is_read(tmp_path: Path) -> None:
    talker(tmp_path / "in" / "a.mp4")
    cfg = IntakeConfig(input=str(tmp_path / "in"), asr=str(tmp_path))
    with pytest.raises(InputError) as told:
        production.produce("videos", cfg, tmp_path)
    for part in ("silero_vad_16k.safetensors", "face_detector.tflite", "face_landmarks_detector.tflite", "intake.asr"):
        assert part in str(told.value)
    assert not (tmp_path / "sources").exists()
    with pytest.raises(InputError) as told:
        production.produce("speech", cfg, tmp_path)
    assert "face_detector" not in str(told.value)


def test_what_nobody_wrote_down_is_heard_by_a_recogniser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamchar.transcript import Word

    talker(tmp_path / "in" / "a.mp4", text=None)
    (tmp_path / "asr").mkdir()
    (tmp_path / "asr" / "config.json").write_text("{}")

    class Hearing(FakeModels):
        def __init__(self, paths: ModelPaths) -> None:
            super().__init__(paths)
            self.recogniser = self

        def hear(self, wave: torch.Tensor) -> list[Word]:
            return [Word("good", float("nan"), float("nan")), Word("morning", float("nan"), float("nan"))]

    monkeypatch.setattr(production, "open_models", Hearing)
    production.produce("videos", fake_options(tmp_path, asr=str(tmp_path / "asr")), tmp_path)
    (clip,) = read_clips(expand_shards(tmp_path / "shards"), Quarantine(max_rate=0))
    assert clip.text == "good morning" and clip.meta["transcript"] == "recogniser" and clip.words[0].start > 0.9


def test_speech_makes_shards_of_sound_and_text(tmp_path: Path) -> None:
    level = np.tile(syllables(5.0, ((0.5, 2.5),)), 2)
    folder = tmp_path / "in" / "LJSpeech-1.1"
    (folder / "wavs").mkdir(parents=True)
    wave = 0.4 * level * np.sin(2 * np.pi * 200 * np.arange(len(level)) / RATE)
    (folder / "wavs" / "LJ001-0001.wav").write_bytes(encode_wav(wave, RATE))
    (folder / "wavs" / "LJ001-0002.wav").write_bytes(encode_wav(wave, RATE))
    (folder / "metadata.csv").write_text("LJ001-0001|one 2 three four|one two three four\n")
    production.produce("speech", fake_options(tmp_path), tmp_path)
    clips = list(read_clips(expand_shards(tmp_path / "shards"), Quarantine(max_rate=0)))
    assert [c.text for c in clips] == ["one two", "three four"] and {c.speaker for c in clips} == {"lj"}
    assert all(c.frames is None and c.sample_rate == RATE for c in clips) and reasons(tmp_path) == {
        "LJ001-0002.wav": "no transcript"}


def mp3(wave: np.ndarray) -> bytes:
    """Mono sound at 16 kHz as Emilia stores it: mp3 at 24 kHz."""
    medium = io.BytesIO()
    with av.open(medium, "w", format="mp3") as box:
        stream = box.add_stream("libmp3lame", rate=24000, layout="mono", options={"b": "32k"})
        piece = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
        piece.rate = RATE
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=24000)
        for frame in [*resampler.resample(piece), *resampler.resample(None), None]:
            box.mux(stream.encode(frame))
    return medium.getvalue()


def test_emilia_tars_of_mp3_become_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real mp3 in the layout as published; one is damaged, one has no JSON. Two utterances are kept together."""
    monkeypatch.setattr(bundle, "UTTERANCES", 2)
    level = syllables(4.0, ((1.0, 2.5),))
    wave = 0.4 * level * np.sin(2 * np.pi * 200 * np.arange(len(level)) / RATE)
    files: dict[str, bytes] = {}
    for number in range(3):
        name = f"EN_B00000_S0000{number % 2}_W00000{number}"
        files[f"{name}.mp3"] = mp3(wave)
        files[f"{name}.json"] = json.dumps({"id": name, "wav": f"{name}.mp3", "text": " Good morning.", "duration": 4.0,
                                           "speaker": name[:-8], "language": "en", "dnsmos": 3.3}).encode()
    files["EN_B00000_S00002_W000003.mp3"] = b"ID3" + bytes(400)
    files["EN_B00000_S00002_W000003.json"] = files["EN_B00000_S00000_W000000.json"]
    files["EN_B00000_S00003_W000004.mp3"] = mp3(wave)
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "EN-B000000.tar", "w") as out:
        for member, body in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
    production.produce("speech", fake_options(tmp_path), tmp_path)
    clips = list(read_clips(expand_shards(tmp_path / "shards"), Quarantine(max_rate=0)))
    assert sorted(c.speaker for c in clips) == ["EN_B00000_S00000"] * 2 + ["EN_B00000_S00001"]
    for clip in clips:
        assert clip.frames is None and clip.sample_rate == RATE and clip.text == "Good morning."
        at = round(clip.meta["source"]["start"] * RATE)  # the codec's delay is taken away: sound is where it was
        loud = np.abs(np.lib.stride_tricks.sliding_window_view(np.pad(clip.wave.numpy(), (at, 0)), 400)[::40]).mean(1)
        asked = np.abs(np.lib.stride_tricks.sliding_window_view(wave, 400)[::40]).mean(1)
        count = min(len(loud), len(asked))
        lags = [np.corrcoef(loud[10 + lag:count - 10 + lag], asked[10:count - 10])[0, 1] for lag in range(-10, 11)]
        assert abs(int(np.argmax(lags)) - 10) <= 2 and max(lags) > 0.98  # within 5 ms
    assert {r["file"].rpartition(":")[2]: r["reason"] for r in rows(tmp_path, "put_aside.jsonl")} == {
        "EN_B00000_S00002_W000003.mp3": "unreadable", "EN_B00000_S00003_W000004.mp3": "no transcript"}
    told = report(tmp_path)
    assert (told["recordings"], told["recordings_used"]) == (5, 3)
    kept = sorted(p.name for p in (tmp_path / "sources").iterdir())
    assert kept == [f"EN-B000000+00000{n}.{kind}" for n, kind in ((0, "json"), (0, "tar"), (2, "json"), (2, "tar"),
                                                                 (4, "json"))]
    (tmp_path / "sources" / "EN-B000000+000002.json").unlink()
    made: list[tuple[str, bool]] = []
    production.produce("speech", fake_options(tmp_path), tmp_path, report=lambda r, new: made.append((r.key, new)))
    assert [key for key, new in made if new] == ["EN-B000000+000002"] and len(made) == 3


def test_speakers_are_held_out_where_there_are_enough() -> None:
    def record(number: int) -> SourceRecord:
        """A bundle of two utterances by different speakers; every speaker is in ten bundles."""
        keys = [f"r{number}-{i}-0000" for i in range(2)]
        return SourceRecord(f"r{number}", "a.tar", "x", [{"key": k, "seconds": 1.0, "speaker": f"s{(number + i) % 30}"}
                                                       for i, k in enumerate(keys)])

    records = [record(n) for n in range(150)]
    speaker = {c["key"]: c["speaker"] for r in records for c in r.clips}

    def split(**options: Any) -> dict[str, set[str]]:
        sets: dict[str, set[str]] = {"train": set(), "val": set()}
        for plan in plan_shards(records, "speech", HoldOut.of(records, 0.1, **options), 7):
            sets["val" if "-val-" in plan.file else "train"] |= {key for _, key, _ in plan.clips}
        assert not sets["train"] & sets["val"] and sets["train"] | sets["val"] == set(speaker)
        return sets

    apart = {name: {speaker[key] for key in keys} for name, keys in split(by_speaker=True).items()}
    assert apart["val"] and not apart["val"] & apart["train"]
    mixed = {name: {speaker[key] for key in keys} for name, keys in split(by_speaker=False).items()}
    assert mixed["val"] & mixed["train"]
    few = [record(0)]  # two speakers: one of them would be half of all
    assert not HoldOut.of(few, 0.1, by_speaker=True).by_speaker


def speech_run(folder: Path) -> list[str]:
    """The command line of a run whose shards hold sound alone, prepared."""
    level = syllables(4.0, ((0.5, 2.5),))
    (folder / "in").mkdir()
    for name in "abc":
        wave = 0.4 * level * np.sin(2 * np.pi * 200 * np.arange(len(level)) / RATE)
        (folder / "in" / f"{name}.wav").write_bytes(encode_wav(wave, RATE))
        (folder / "in" / f"{name}.txt").write_text("place red now")
    production.produce("speech", fake_options(folder), folder)
    return ["preset=tiny", f"root={folder}", "name=own", f"data.shards={folder / 'shards'}"]


def test_sound_alone_is_encoded_where_no_pictures_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = speech_run(tmp_path)
    assert main(["stage=encode", *line]) == 2
    assert "codec.video.kind=none" in capsys.readouterr().err
    assert main(["stage=encode", *line, "codec.video.kind=none"]) == 0
    index = json.loads((tmp_path / "own" / "encode" / "latents" / "train" / "shards.json").read_text())
    assert index["video"] is None and index["audio_channels"] > 0 and index["shards"][0]["clips"] == 2
    assert main(["stage=inspect", *line, "codec.video.kind=none", "inspect.items=1"]) == 0
    assert "sound alone" in (tmp_path / "own" / "inspect" / "index.html").read_text()


@pytest.mark.slow
def test_the_orchestrator_trains_on_sound_alone(tmp_path: Path) -> None:
    line = [*speech_run(tmp_path), "codec.video.kind=none"]
    assert main(["stage=encode", *line]) == 0 and main(["stage=orchestrator", *line]) == 0
    rows = [json.loads(r) for r in (tmp_path / "own" / "orchestrator" / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([r["train/audio"] for r in rows if "train/audio" in r]).sum() == 4
    assert main(["stage=teacher", *line]) == 2  # it needs pictures, and says so


def test_recordings_stay_where_they_were_put_when_others_come() -> None:
    def held(names: list[str], share: float) -> set[str]:
        out = HoldOut(names, share)
        return {n for n in names if n in out}

    some = [f"clip{i}" for i in range(200)]
    chosen = held(some, 0.1)
    assert 5 < len(chosen) < 40 and chosen == held([*some, "new"], 0.1) - {"new"}
    assert len(held(["a", "b", "a"], 0.001)) == 1 and not held(["a", "a"], 0.001) and not held(some, 0.0)


def test_the_stage_makes_shards_that_encode_takes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in "abc":
        talker(tmp_path / "in" / f"{name}.mp4")
    options = [f"intake.{k}={v}" for k, v in asdict(fake_options(tmp_path)).items()
               if k not in ("input", "language") and v is not None]
    line = ["preset=tiny", f"root={tmp_path}", "name=own"]
    assert main(["stage=prepare", "recipe=videos", f"input={tmp_path / 'in'}", *options, *line]) == 0
    assert "3 clips of 3 of 3 recordings" in capsys.readouterr().out
    assert main(["stage=encode", *line]) == 0
    said = capsys.readouterr().out
    assert "train: 2 clips" in said and "val: 1 clips" in said


def test_the_command_line_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = [f"root={tmp_path}", "preset=tiny"]
    assert main(["stage=prepare", "recipe=videos", *line]) == 2
    assert "input=DIR" in capsys.readouterr().err
    assert main(["stage=prepare", "recipe=films", f"input={tmp_path}", *line]) == 2
    assert "puppet, videos, grid, speech" in capsys.readouterr().err
    assert main(["stage=prepare", f"input={tmp_path}", *line]) == 2
    assert "recipe=videos, grid or speech" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not all((DATA / f).is_dir() for f in ("grid_raw", "mediapipe_face", "silero_vad")),
                    reason="needs ../shared/data/{grid_raw,mediapipe_face,silero_vad}")
def test_real_clips_with_their_text_alone_and_two_processes(tmp_path: Path) -> None:
    from datamodules.intake.transcripts import read_transcript

    (tmp_path / "in").mkdir()
    for align in sorted((DATA / "grid_raw").glob("*.align"))[:3]:
        shutil.copy(align.with_suffix(".mpg"), tmp_path / "in")
        (tmp_path / "in" / f"{align.stem}.txt").write_text(read_transcript(align)[0].text)
    cfg = IntakeConfig(input=str(tmp_path / "in"), detector=str(DATA / "mediapipe_face"), size=96, workers=2,
                       vad=str(DATA / "silero_vad" / "silero_vad_16k.safetensors"))
    production.produce("videos", cfg, tmp_path)
    errors = []
    for clip in read_clips(expand_shards(tmp_path / "shards"), Quarantine(max_rate=0)):
        source = clip.meta["source"]
        tokens = read_transcript(DATA / "grid_raw" / Path(source["file"]).with_suffix(".align"))[0].tokens or ()
        assert [w.text for w in clip.words] == [t.text for t in tokens]
        errors += [abs(w.start + source["start"] - t.start) for w, t in zip(clip.words, tokens, strict=True)]
    assert len(errors) == 18 and np.median(errors) < 0.08
