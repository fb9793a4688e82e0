"""Transcripts of all kinds, corpora's layouts, and the cutting of recordings."""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.intake.containers import probe
from datamodules.intake.cutting import CutRules, plan_clips, words_within
from datamodules.intake.hearing import unwritten, without
from datamodules.intake.listing import list_sources
from datamodules.intake.rejection import Rejected
from datamodules.intake.transcripts import Token, find_transcript, read_transcript
from datamodules.intake.video_layouts import grid_sentence
from streamchar.errors import DataError, InputError

WORDS = [{"word": " Hello,", "start": 0.5, "end": 0.9}, {"word": "you", "start": 1.0, "end": 1.2}]
SRT = ("1\r\n00:00:01,500 --> 00:00:02,000\r\n<i>Hello,</i> you\r\n\r\n"
       "2\r\n00:01:03,000 --> 00:01:04,250\r\n- [door] Go &amp; see")
VTT = "WEBVTT\n\nNOTE nothing\n\nintro\n00:01.500 --> 00:02.000 align:start\n<v Ann>Hello, you\n"


@pytest.mark.parametrize(("name", "body", "expected"), [
    ("a.txt", "\ufeffHello,\n you ", [("Hello, you", 0.0, math.inf, None)]),
    ("a.srt", SRT, [("Hello, you", 1.5, 2.0, None), ("Go & see", 63.0, 64.25, None)]),
    ("a.vtt", VTT, [("Hello, you", 1.5, 2.0, None)]),
    ("a.json", json.dumps({"text": "Hello, you", "speaker": "s"}), [("Hello, you", 0.0, math.inf, None)]),
    ("a.json", json.dumps({"words": WORDS}), [("Hello, you", 0.5, 1.2, 2)]),
    ("a.json", json.dumps({"segments": [{"text": " Hello, you", "start": 0, "end": 2}]}),
     [("Hello, you", 0.0, 2.0, None)]),
    ("a.json", json.dumps({"segments": [{"text": "x", "start": 0, "end": 2, "words": WORDS}]}),
     [("Hello, you", 0.5, 1.2, 2)]),
    ("a.align", "0 12500 sil\r\n12500 22500 hello\r\n25000 30000 you\r\n30000 74500 sil\r\n",
     [("hello you", 0.5, 1.2, 2)]),
])
def test_every_kind_of_transcript_gives_cues(tmp_path: Path, name: str, body: str, expected: list) -> None:
    (tmp_path / name).write_text(body, newline="")
    cues = read_transcript(tmp_path / name)
    assert [(c.text, c.start, c.end, c.tokens and len(c.tokens)) for c in cues] == expected


@pytest.mark.parametrize(("name", "body"), [
    ("a.txt", " -- \n"), ("a.srt", "Hello"), ("a.json", "{"), ("a.json", "[]"), ("a.json", '{"other": 1}'),
    ("a.align", "0 x hello"), ("a.json", json.dumps({"words": [{"w": "a", "start": 2, "end": 1}]})),
    ("a.json", '{"words": [{"w": "a", "start": NaN, "end": 1}]}')])
def test_a_bad_transcript_is_a_reason_not_a_crash(tmp_path: Path, name: str, body: str) -> None:
    (tmp_path / name).write_text(body)
    with pytest.raises(Rejected) as no:
        read_transcript(tmp_path / name)
    assert no.value.reason == "bad transcript" and name in no.value.detail


def test_the_transcript_that_tells_most_is_taken(tmp_path: Path) -> None:
    for ending in (".txt", ".srt", ".align"):
        (tmp_path / f"a{ending}").write_text("x")
    assert find_transcript(tmp_path / "a.mpg") == tmp_path / "a.align"
    assert find_transcript(tmp_path / "b.mpg") is None


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_layouts_give_texts_and_speakers(tmp_path: Path) -> None:
    touch(tmp_path, "LJSpeech-1.1/wavs/LJ001-0001.wav", "LibriSpeech/test/84/121/84-121-0000.flac", "EN/a_1.mp3",
          "plain/b.ogg", "plain/c.wav")
    (tmp_path / "LJSpeech-1.1" / "metadata.csv").write_text("LJ001-0001|In 1789.|In seventeen eighty-nine.\n")
    (tmp_path / "LibriSpeech/test/84/121/84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n")
    (tmp_path / "EN/a_1.json").write_text(json.dumps({"id": "a_1", "text": "Hi.", "speaker": "EN_S7", "wav": "a.mp3"}))
    (tmp_path / "plain/b.txt").write_text("hello")
    (bundle,) = list_sources("speech", str(tmp_path))
    found = {s.path.name: s for s in bundle.sources()}
    assert (found["LJ001-0001.wav"].text, found["LJ001-0001.wav"].speaker) == ("In seventeen eighty-nine.", "lj")
    assert (found["84-121-0000.flac"].text, found["84-121-0000.flac"].speaker) == ("GO DO YOU HEAR", "libri-84")
    assert found["a_1.mp3"].speaker == "EN_S7" and found["a_1.mp3"].transcript == tmp_path / "EN/a_1.json"
    assert found["b.ogg"].transcript == tmp_path / "plain/b.txt" and found["b.ogg"].speaker == "plain"
    assert found["c.wav"].transcript is found["c.wav"].text is None  # reported when it is read, not lost here
    assert len(found) == 5


def test_emilia_tars_are_read_without_unpacking(tmp_path: Path) -> None:
    tar = tmp_path / "EN-B000000.tar"
    rows = {"EN_B0_S1_W0.json": b'{"text": "Hi there.", "speaker": "EN_S7"}', "EN_B0_S1_W0.mp3": b"one",
            "part/EN_B0_S1_W1.mp3": b"two", "part/EN_B0_S1_W1.json": b'{"text": "Bye."}', "alone.mp3": b"three"}
    with tarfile.open(tar, "w") as out:
        for name, body in rows.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
    (whole,) = list_sources("speech", str(tmp_path))
    found = {s.key: s for s in whole.sources()}
    assert list(found) == ["EN-B000000+EN_B0_S1_W0", "EN-B000000+part-EN_B0_S1_W1", "EN-B000000+alone"]
    first, last, alone = found.values()
    assert (first.speaker, last.speaker, alone.text_member) == ("EN_S7", "EN-B000000", None)
    assert first.member.read(tar) == b"one" and last.member.read(tar) == b"two"
    assert [c.text for c in read_transcript(first.transcript, first.text_member)] == ["Hi there."]
    assert first.name == f"{tar}:EN_B0_S1_W0.mp3" and last.file_name == "EN_B0_S1_W1.mp3"
    tar.write_bytes(tar.read_bytes()[:last.member.begin + 1])
    cut, rest = list_sources("speech", str(tmp_path))
    assert cut.name == str(tar) and rest.count == 2 and rest.fingerprint() != whole.fingerprint()  # the tar, to be told
    with pytest.raises(Rejected, match="EN-B000000.tar ends inside part/EN_B0_S1_W1.mp3"):
        last.member.read(tar)
    with pytest.raises(DataError, match="has 2 recordings now, and had more when listed"):
        list(whole.sources())


def test_a_tar_that_ends_inside_a_text_costs_that_utterance_alone(tmp_path: Path) -> None:
    tar = tmp_path / "x.tar"
    with tarfile.open(tar, "w") as out:
        for name in ("a.mp3", "b.mp3", "b.json"):
            info = tarfile.TarInfo(name)
            info.size = 600
            out.addfile(info, io.BytesIO(bytes(600)))
    tar.write_bytes(tar.read_bytes()[:512 + 1024 + 512 + 1024 + 512 + 100])
    (rows,) = (s for s in list_sources("speech", str(tmp_path)) if s.count == 2)
    assert [s.speaker for s in rows.sources()] == ["x", "x"]


def test_a_tar_and_what_was_unpacked_beside_it_are_different_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "shard/000000.mp3", "a/b-c.mp3")
    for name in ("shard.tar", "a.tar", "a-b.tar"):
        with tarfile.open(tmp_path / name, "w") as out:
            out.addfile(tarfile.TarInfo("c.mp3" if name == "a-b.tar" else "b-c.mp3"))
    found = list(list_sources("speech", str(tmp_path)))
    clips = [one.key for s in found for one in s.sources()]
    assert len({s.key for s in found}) == len(found) == 4 and len(set(clips)) == len(clips) == 5


def test_grid_as_published_and_by_its_names(tmp_path: Path) -> None:
    touch(tmp_path, "s1/bbaf2n.mpg", "s1/bbaf3s.mpg", "s1/notes.mpg")
    (tmp_path / "alignments" / "s1").mkdir(parents=True)
    (tmp_path / "alignments" / "s1" / "bbaf2n.align").write_text("0 100 sil\n")
    found = {s.path.stem: s for s in list_sources("grid", str(tmp_path))}
    assert found["bbaf2n"].transcript == tmp_path / "alignments/s1/bbaf2n.align" and found["bbaf2n"].speaker == "s1"
    assert found["bbaf3s"].text == "bin blue at f three soon" and found["notes"].text is None
    assert grid_sentence("lwizzp") == "lay white in z zero please" and grid_sentence("bbaw2n") is None


def test_keys_are_unique_short_and_without_dots(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.mp4", "a-b.mp4", "a.b.mp4", "né.mkv", f"{'long' * 40}.mp4", ".hidden/x.mp4", "read.md")
    keys = [s.key for s in list_sources("videos", str(tmp_path))]
    assert len(set(keys)) == len(keys) == 5
    assert all("." not in k and "/" not in k and len(k) <= 80 for k in keys)
    touch(tmp_path, "zz.mp4")
    assert set(keys) < {s.key for s in list_sources("videos", str(tmp_path))}


def test_links_are_followed_and_what_cannot_be_listed_is_a_recording(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/b/x.mp4", "elsewhere/y.mp4", "in/closed/z.mp4")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "b" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = [s.path.relative_to(tmp_path / "in") for s in list_sources("videos", str(tmp_path / "in"))]
    assert [str(p) for p in found] == ["a/y.mp4", "b/x.mp4", "closed"]
    with pytest.raises(Rejected, match="unreadable"):
        probe(tmp_path / "in" / "closed")


def test_names_that_are_no_text_have_keys(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    touch(tmp_path, f"{name}.wav", f"{name * 30}.wav", "caf-.wav")
    (bundle,) = list_sources("speech", str(tmp_path))
    keys = [s.key for s in bundle.sources()]
    assert len(set(keys)) == 3 and all(k.isascii() for k in keys) and bundle.fingerprint()


def test_a_table_of_texts_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "wavs/LJ001-0001.wav")
    (tmp_path / "metadata.csv").write_bytes(b"LJ001-0001|caf\xe9\n")
    with pytest.raises(DataError, match=r"metadata.csv cannot be read .*UTF-8"):
        list_sources("speech", str(tmp_path))


def test_no_input_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input=DIR"):
        list_sources("videos", None)
    with pytest.raises(DataError, match="no folder"):
        list_sources("videos", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no recording"):
        list_sources("videos", str(tmp_path))


RULES = CutRules(max_s=20.0, edge_s=1.0, pause_s=1.5)


def test_long_pauses_cut_and_short_ones_stay() -> None:
    speech = [(3.0, 5.0), (6.4, 8.0), (10.0, 12.0), (20.0, 21.0)]
    assert plan_clips((0.0, 30.0), speech, [], RULES) == [(2.0, 9.0), (9.0, 13.0), (19.0, 22.0)]
    assert plan_clips((2.5, 4.5), speech, [], RULES) == [(2.5, 4.5)]


def test_clips_keep_every_word_whole_and_never_overlap() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        words, now = [], float(rng.uniform(0, 3))
        for i in range(int(rng.integers(1, 120))):
            length = float(rng.uniform(0.1, 0.7))
            words.append(Token(f"w{i}", now, now + length))
            now += length + float(rng.choice([0.0, 0.1, 0.6, 3.0], p=[0.5, 0.3, 0.15, 0.05]))
        speech = [(max(w.start - 0.05, 0), w.end + 0.1) for w in words[::2]]
        clips = plan_clips((0.0, now + 2), speech, words, RULES)
        assert all(e - s <= RULES.max_s + 1e-9 for s, e in clips)
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(clips, clips[1:], strict=False))
        assert [w.text for c in clips for w in words_within(words, c, slack=1e-6)] == [w.text for w in words]


def test_a_word_across_a_shot_is_in_no_clip() -> None:
    words = [Token("a", 1.0, 2.0), Token("b", 4.5, 5.5), Token("c", 6.0, 7.0)]
    first = plan_clips((0.0, 5.0), [(1.0, 7.0)], words, RULES)
    second = plan_clips((5.0, 9.0), [(1.0, 7.0)], words, RULES)
    assert [w.text for c in first for w in words_within(words, c)] == ["a"] and first[-1][1] <= 4.5
    assert [w.text for c in second for w in words_within(words, c)] == ["c"] and second[0][0] >= 5.5


def test_speech_without_a_break_is_cut_at_the_limit() -> None:
    clips = plan_clips((0.0, 50.0), [(0.0, 50.0)], [], RULES)
    assert clips[0] == (0.0, 20.0) and clips[-1][1] == 50.0 and len(clips) == 3


def test_speech_without_text_is_found() -> None:
    words = [Token("a", 1.0, 1.5), Token("b", 1.6, 2.0)]
    assert unwritten([(0.9, 2.2), (5.0, 7.0)], words) == [(5.0, 7.0)]
    assert without([(0.0, 10.0)], (2.0, 3.0)) == [(0.0, 2.0), (3.0, 10.0)]
