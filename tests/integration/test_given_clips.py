"""``stage=evaluate clips=DIR`` as a user runs it: other systems' clips, in a folder, without any run of ours."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.recipe import plan_shards
from datamodules.puppet.take import Take, make_take
from pipelines.run import main
from streamchar.evaluation.syncnet import SyncNet, save_syncnet
from streamchar.evaluation.syncnet_config import SyncNetConfig
from streamchar.streaming.muxer import write_clip

PUPPETS = PrepareConfig(clips=3, val_clips=0, size=48, identities=3, grammar="grid", min_s=2.4, max_s=3.4,
                        max_sentences=1, workers=0)


@pytest.fixture(scope="module")
def takes() -> list[Take]:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("av")
    return [make_take(clip, PUPPETS) for shard in plan_shards(PUPPETS) for clip in shard.clips]


@pytest.fixture(scope="module")
def clips(takes: list[Take], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three whole clips, their texts told in every way, under names that addresses and HTML would misread."""
    folder = tmp_path_factory.mktemp("given") / "clips"
    for key, take in zip(("plain", "with json", "take #3 <50%>"), takes, strict=True):
        write_clip(folder / f"{key}.mp4", take.frames, take.wave, 25, 16000)
    said = [" ".join(take.sentences) for take in takes]
    (folder / "plain.txt").write_text(said[0].capitalize() + ".\n")
    (folder / "with json.json").write_text(json.dumps({"text": said[1], "speaker": takes[1].who.name}))
    (folder / "take #3 <50%>.txt").write_text(said[2])
    Image.fromarray(takes[1].frames[0]).resize((96, 96)).save(folder / "with json.png")
    return folder


def spoilt(clips: Path, folder: Path) -> Path:
    """The folder with six clips more, none of which can be scored."""
    shutil.copytree(clips, folder)
    for key in ("untold", "quiet", "garbled", "wordless", "unpictured"):
        shutil.copy(folder / "plain.mp4", folder / f"{key}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video" * 99)
    (folder / "broken.txt").write_text("place red at c nine again")
    (folder / "quiet.txt").write_text(" ...\n")
    (folder / "garbled.json").write_text("{'text': ")
    (folder / "wordless.json").write_text('{"words": []}')
    (folder / "unpictured.txt").write_text("place red at c nine again")
    (folder / "unpictured.png").write_bytes(b"no picture")
    return folder


def test_a_folder_is_scored_without_preset_or_run(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
                                                  ) -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    spoilt(clips, tmp_path / "theirs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        assert main(["stage=evaluate", "clips=../theirs", "root=out", "name=theirs"]) == 0

    left_out = [r.getMessage() for r in caplog.records if r.getMessage().startswith("left out")]
    assert len(left_out) == 6
    for part in ("broken.mp4: cannot decode", "untold.mp4: there is no untold.json or untold.txt",
                 "quiet.mp4: its text holds no words", "garbled.mp4: its text cannot be read",
                 "wordless.mp4: wordless.json holds no text", "unpictured.mp4: unpictured.png is no picture"):
        assert any(part in message for message in left_out), part

    folder = tmp_path / "elsewhere" / "out" / "theirs" / "evaluate"  # relative paths start where the user stands
    assert f"page: {folder / 'index.html'}" in capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    assert report["facts"] == {"folder": "theirs", "clips": 3, "left out": 6, "fps": "25"}
    assert {clip["key"] for clip in report["clips"]} == {"plain", "with json", "take #3 <50%>"}
    metrics = report["metrics"]
    assert metrics["eval/words/word_errors/given"] < 30 < metrics["eval/words/word_errors/baseline"]
    assert metrics["eval/words/word_errors_of_noise/baseline"] > 70
    assert metrics["eval/identity/distance_to_the_reference/given"] < 0.05
    assert 0.7 < metrics["eval/picture/sharpness/given"] < 2
    assert metrics["eval/picture/motion/given"] > 0
    # what needs a run's recorded clips is not there, rather than there without a value
    assert not any("dynamic" in name or "relative" in name for name in metrics)
    assert "2 of 3 clips have no KEY.png" in " ".join(report["notes"])

    table = (folder / "table.txt").read_text()
    assert "given clips" in table and "student" not in table and "nan" not in table and "no signal" not in table
    page = (folder / "index.html").read_text()
    assert "nan" not in page.lower() and "http" not in page and "take #3 &lt;50%&gt;" in page
    for clip in report["clips"]:
        for path in (*clip["videos"].values(), *clip["posters"].values()):
            assert (folder / path).is_file() and quote(path) in page


def test_without_a_name_the_report_still_says_where_it_is(clips: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage=evaluate", f"clips={clips}", f"root={tmp_path}", "evaluate.words=false"]) == 0
    pages = [line.removeprefix("page: ") for line in capsys.readouterr().out.splitlines() if line.startswith("page: ")]
    assert len(pages) == 1
    page = Path(pages[0])
    assert page.is_file() and page.is_relative_to(tmp_path) and page.parent.name == "evaluate"
    assert not any("words" in name for name in json.loads((page.parent / "report.json").read_text())["metrics"])


def test_texts_outside_the_grammar_are_heard_by_a_bigram(clips: Path, takes: list[Take], tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    for i, take in enumerate(takes[:2]):
        write_clip(tmp_path / "free" / f"{i}.mp4", take.frames, take.wave, 25, 16000)
        (tmp_path / "free" / f"{i}.txt").write_text("well, " + " ".join(take.sentences))
    assert main(["stage=evaluate", f"clips={tmp_path / 'free'}", f"root={tmp_path}", "name=free"]) == 0
    rows = json.loads((tmp_path / "free" / "evaluate" / "report.json").read_text())["rows"]
    notes = {row["name"]: row["note"] for row in rows if row["group"] == "words"}
    assert "bigram" in notes["word errors"] and "word errors, bigram" not in notes
    assert not any(row["group"] == "words by slot" for row in rows)


def test_silent_short_and_odd_sized_clips_are_scored_too(tmp_path: Path, takes: list[Take]) -> None:
    av = pytest.importorskip("av")
    folder = tmp_path / "odd"
    folder.mkdir()
    with av.open(str(folder / "a.mp4"), "w") as out:  # 47x49, without sound, 12 frames: too short for lip sync
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 47, 49, "yuv444p"
        for picture in np.pad(takes[0].frames[:12], ((0, 0), (0, 1), (0, 0), (0, 0)))[:, :, :47]:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode())
    (folder / "a.txt").write_text("place red at c nine again")
    assert main(["stage=evaluate", f"clips={folder}", f"root={tmp_path}", "name=run", "evaluate.words=false"]) == 0
    assert (tmp_path / "run" / "evaluate" / "videos" / "a-given.mp4").is_file()
    metrics = json.loads((tmp_path / "run" / "evaluate" / "report.json").read_text())["metrics"]
    assert metrics["eval/picture/sharpness/given"] > 0


def refused(folder: Path, root: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["stage=evaluate", f"clips={folder}", f"root={root}", "evaluate.words=false", *more]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err and not list(root.glob("*/evaluate/report.json"))
    return said.err


def test_a_missing_folder_is_named_with_what_belongs_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path / "nowhere", tmp_path, capsys)
    assert str(tmp_path / "nowhere") in said and "KEY.mp4" in said and "KEY.txt" in said


def test_an_empty_folder_is_refused_with_what_belongs_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(tmp_path / "empty", tmp_path, capsys)
    assert str(tmp_path / "empty") in said and "holds no mp4" in said and "KEY.json" in said


def test_a_folder_without_a_usable_clip_says_why(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                 ) -> None:
    (tmp_path / "untold").mkdir()
    shutil.copy(clips / "plain.mp4", tmp_path / "untold" / "plain.mp4")
    said = refused(tmp_path / "untold", tmp_path, capsys)
    assert "none of 1 mp4 files" in said and "there is no plain.json or plain.txt" in said


def test_two_frame_rates_are_refused_with_a_clip_of_each(clips: Path, takes: list[Take], tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(clips, tmp_path / "mixed")
    write_clip(tmp_path / "mixed" / "slow.mp4", takes[0].frames, takes[0].wave, 24, 16000)
    (tmp_path / "mixed" / "slow.txt").write_text(" ".join(takes[0].sentences))
    said = refused(tmp_path / "mixed", tmp_path, capsys)
    assert "25 fps (plain.mp4)" in said and "24 fps (slow.mp4)" in said and "folder of their own" in said


def test_an_unknown_protocol_or_device_folder_is_refused(clips: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(clips, tmp_path, capsys, "protocol=nonsense")
    assert "'nonsense'" in said and "short" in said and "long" in said
    said = refused(clips, tmp_path, capsys, f"evaluate.parts={tmp_path / 'nothing'}")
    assert "evaluate.parts" in said and "--help evaluate" in said


def test_drawn_faces_are_scored_without_lips_and_the_report_says_so(clips: Path, tmp_path: Path) -> None:
    assert main(["stage=evaluate", f"clips={clips}", f"root={tmp_path}", "evaluate.words=false",
                 "evaluate.mouth=puppet"]) == 0
    report = json.loads(next(tmp_path.glob("given-*/evaluate/report.json")).read_text())
    assert "sync" not in {row["group"] for row in report["rows"]} and any("drawn" in n for n in report["notes"])


def test_our_syncnet_without_a_folder_of_one_is_said(clips: Path, tmp_path: Path) -> None:
    assert main(["stage=evaluate", f"clips={clips}", f"root={tmp_path}", "evaluate.words=false",
                 "evaluate.syncnet_clips=4"]) == 0
    report = json.loads(next(tmp_path.glob("given-*/evaluate/report.json")).read_text())
    assert not any("SyncNet, ours" in row["name"] for row in report["rows"])
    assert any("Not measured: our SyncNet" in note and "evaluate.syncnet=" in note for note in report["notes"])


def test_a_syncnet_that_is_there_scores_given_clips(clips: Path, tmp_path: Path) -> None:
    save_syncnet(SyncNet(SyncNetConfig(), fps=25.0), tmp_path / "net")
    assert main(["stage=evaluate", f"clips={clips}", f"root={tmp_path}", "evaluate.words=false",
                 f"evaluate.syncnet={tmp_path / 'net'}"]) == 0
    report = json.loads(next(tmp_path.glob("given-*/evaluate/report.json")).read_text())
    assert any("SyncNet, ours" in row["name"] for row in report["rows"])


def test_a_syncnet_of_another_frame_rate_or_none_is_refused(clips: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    save_syncnet(SyncNet(SyncNetConfig(), fps=50.0), tmp_path / "net")
    said = refused(clips, tmp_path, capsys, f"evaluate.syncnet={tmp_path / 'net'}")
    assert "25 fps" in said and "trained at 50" in said
    assert "no SyncNet in" in refused(clips, tmp_path, capsys, f"evaluate.syncnet={tmp_path / 'nowhere'}")


def test_cheats_that_cannot_be_made_are_said(clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert main(["stage=evaluate", f"clips={clips}", f"root={tmp_path}", "evaluate.words=false",
                     "evaluate.cheats=true"]) == 0
    assert any("cheats are made of a run's recorded clips" in r.getMessage() for r in caplog.records)
