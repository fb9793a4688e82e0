"""New sentences, further seeds, and how the report holds what was measured on them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress

from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.sentences import asked_anew, new_sentences
from pipelines.evaluating.short import with_seeds
from pipelines.evaluating.streams import join_prompts, together
from pipelines.evaluating.voices import voice_rows
from streamchar.clock import ChunkClock
from streamchar.diffusion.noise import NoiseKey
from streamchar.errors import InputError
from streamchar.evaluation.recogniser import grid_sentences
from streamchar.evaluation.report import CHEATS, Report, Row
from streamchar.evaluation.words import shuffled_score
from streamchar.transcript import normalise_words
from tests.tiny_models import streams

GRID = ["place red at c nine again", "bin blue by v one now", "set green in f two soon"]


def asked() -> list[Subject]:
    """Two held-out clips with the prompts that they are streamed from."""
    picture = np.zeros((8, 8, 3), np.uint8)
    take = Rendering(picture[None], np.zeros(640, np.float32))
    return [Subject(f"clip{i}", text, picture, {"real": take}, streams([text.split()]), None, f"voice{i}", f"look{i}",
                    [0.5]) for i, text in enumerate(GRID[:2])]


# new sentences


def test_new_sentences_are_new_different_and_of_the_grammar() -> None:
    found = new_sentences(300, GRID, seed=0)
    assert len(set(found)) == 300 and not set(found) & set(GRID)
    assert all(grid_sentences(text.split()) == 1 for text in found)
    assert found == new_sentences(300, GRID, seed=0) != new_sentences(300, GRID, seed=1)
    assert found[:20] == new_sentences(20, GRID, seed=0)


def test_a_sentence_that_is_known_in_any_spelling_or_company_is_not_new() -> None:
    first = new_sentences(40, [], seed=5)
    assert not set(new_sentences(40, [text.upper() + "!" for text in first], seed=5)) & set(first)
    together_ = [" ".join(first[:3]), ", ".join(first[3:])]  # clips of several sentences
    assert not set(new_sentences(40, together_, seed=5)) & set(first)


def test_more_sentences_than_the_grammar_holds_are_refused() -> None:
    with pytest.raises(InputError, match="new_sentences=64000.*only 63997"):
        new_sentences(64000, GRID, seed=0)


def test_new_sentences_are_asked_of_the_clips_in_turn() -> None:
    clips = asked()
    new = asked_anew(clips, 5, GRID, seed=0)
    assert [s.text for s in new] == new_sentences(5, GRID, seed=0)
    assert [s.key for s in new] == [f"new-{i:03d}" for i in range(5)]
    assert [s.look for s in new] == ["look0", "look1", "look0", "look1", "look0"]
    for subject, base in zip(new, clips, strict=False):
        assert subject.new and not subject.renderings and subject.truth is None and subject.opening is None
        assert subject.prompt is not None and base.prompt is not None
        assert subject.prompt.words == [subject.text.split()] and base.prompt.words == [base.text.split()]
        assert subject.prompt.ref is base.prompt.ref and subject.reference is base.reference
    assert asked_anew(clips, 0, GRID, seed=0) == []


def test_texts_outside_the_grammar_get_no_new_sentences_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    for known in ([*GRID, "the dog runs home"], [], ["", "..."]):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert asked_anew(asked(), 3, known, seed=0) == []
        assert "evaluate.new_sentences=3" in caplog.text and "GRID" in caplog.text


def test_a_clip_without_text_does_not_hide_the_grammar() -> None:
    assert len(asked_anew(asked(), 3, [*GRID, ""], seed=0)) == 3


# seeds


def test_further_seeds_stream_copies_that_share_nothing_recorded() -> None:
    clips = [*asked(), *asked_anew(asked(), 1, GRID, seed=0)]
    all_ = with_seeds(clips, 3)
    assert with_seeds(clips, 1) == clips
    assert all_[:3] == clips and [s.seed for s in all_] == [0] * 3 + [1] * 3 + [2] * 3
    assert len({s.key for s in all_}) == 9 and all_[3].key == "clip0-seed1"
    for i, copy in enumerate(all_[3:]):
        base = clips[i % 3]
        assert (copy.text, copy.new, copy.look, copy.speaker) == (base.text, base.new, base.look, base.speaker)
        assert copy.reference is base.reference and copy.prompt is base.prompt
        assert copy.renderings == {} and copy.truth is None and copy.opening is None
        copy.renderings["student"] = clips[0].renderings["real"]  # each has a place of its own for what it streams
    assert "student" not in clips[0].renderings


def test_a_seeds_copy_is_not_compared_with_the_voice_of_its_own_clip() -> None:
    class Ear:
        def embed(self, wave: torch.Tensor) -> np.ndarray:
            return np.eye(3)[round(float(wave[0]))]

    clips = asked()
    for subject in clips:
        subject.speaker = "one"
    everyone = with_seeds(clips, 2)
    for subject, voice in zip(everyone, (0, 1, 0, 0), strict=True):
        take = Rendering(np.zeros((1, 8, 8, 3), np.uint8), np.full(640, voice, np.float32))
        subject.renderings = {"student" if subject.seed else "real": take}
    report = Report("", {})
    clock = ChunkClock(fps=25, chunk_frames=17, audio_rate=25, sample_rate=16000)
    with Progress(disable=True) as bar:
        voice_rows(report, everyone, Devices(voice=Ear()), clock, bar)  # type: ignore[arg-type]
    # the first copy sounds like its own clip and is compared with the other one; the second sounds like the other
    assert report.rows[0].values == {"real": 0, "student": 0.5}


def test_equal_prompts_streamed_together_get_noise_of_their_own() -> None:
    prompt = streams([GRID[0].split()])
    joined = join_prompts([prompt, prompt, streams([text.split() for text in GRID[1:]])])
    assert joined.index.tolist() == [0, 1, 2, 3] and len(joined) == 4
    assert joined.words == [text.split() for text in (GRID[0], GRID[0], *GRID[1:])]
    assert joined.ref.shape[0] == 4 and (joined.ref[0] == joined.ref[1]).all()
    noise = NoiseKey.of(7, joined.index).normal((16,))
    assert len({tuple(row.tolist()) for row in noise}) == 4


def test_subjects_say_their_own_texts_together() -> None:
    new = asked_anew(asked(), 3, GRID, seed=0)
    assert together(new).words == [s.text.split() for s in new]


def test_shuffled_transcripts_never_meet_the_same_text_said_again() -> None:
    pytest.importorskip("jiwer")
    texts = ["a b", "c d", "e f"]
    for seed in range(10):
        assert shuffled_score(texts * 3, texts * 3, seed=seed).wer == 1
        assert shuffled_score(["a b", *texts], ["a b", *texts], seed=seed).wer == 1


# the report


def test_measure_leaves_out_clips_without_a_signal() -> None:
    report = Report("", {})
    nan = float("nan")
    report.measure("sync", "r", {"real": [0.5, nan, 0.7, 0.6], "student": [nan, nan], "teacher": [0.4, nan],
                                 "given": []}, {"baseline": 0.1}, better="high", note="n")
    row = report.rows[0]
    assert row.values["real"] == pytest.approx(0.6) and row.values["teacher"] == 0.4 and row.values["baseline"] == 0.1
    assert math.isnan(row.values["student"]) and math.isnan(row.values["given"])
    assert row.text("student") == "no signal" and row.text("codec") == "\u2013"
    assert set(row.intervals) == {"real"}  # one clip has no interval
    low, high = row.intervals["real"]
    assert 0.5 <= low < 0.6 < high <= 0.7
    assert (row.better, row.note) == ("high", "n")
    saved = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert saved["rows"][0]["values"]["student"] is None and "eval/sync/r/student" not in saved["metrics"]


@pytest.mark.parametrize(("unit", "interval", "text"), [
    ("", (0.5, 0.75), "0.500 .. 0.750"),
    ("", (-0.25, 0.5), "-0.250 .. 0.500"),
    ("", (2.5, 12.25), "2.5 .. 12.2"),
    ("%", (6.4, 20.6), "6 .. 21"),
    ("frames", (-6.0, 0.0), "-6 .. 0"),
    ("%", (100.0, 100.0), ""),  # all clips equal: no width to speak of
    ("", (float("nan"), float("nan")), ""),
    ("", (0.5, float("inf")), ""),
])
def test_spread_of_an_interval(unit: str, interval: tuple[float, float], text: str) -> None:
    row = Row("g", "n", {"student": 1.0}, unit, intervals={"student": interval})
    assert row.spread("student") == text and row.spread("real") == ""


def test_cheats_are_kept_out_of_the_main_table(tmp_path: Path) -> None:
    report = Report("Numbers of [a] run", {})
    report.measure("words", "errors", {"real": [1.0, 2.0], "student": [3.0, 4.0], "noise": [90.0, 99.0],
                                       "still": [1.0, 2.0]}, {"baseline": 80.0}, unit="%", note="heard [by] somebody")
    report.add("picture", "only of cheats", {"still": 0.125})
    report.add("speed", "only of the student", {"student": 0.25})
    assert report.columns() == ["real", "student", "baseline"]
    assert report.columns(cheats=True) == ["real", "still", "noise"]
    report.save(tmp_path)
    main, cheats = (tmp_path / "table.txt").read_text().split("What must look bad")
    assert "Numbers of [a] run" in main and "heard [by] somebody" in main
    assert "94.5 %" not in main and "0.125" not in main and "0.250" in main
    assert "94.5 %" in cheats and "0.125" in cheats and "only of the student" not in cheats and "80.0 %" not in cheats
    main, cheats = (tmp_path / "index.html").read_text().split("What must look bad")
    assert "94.5 %" not in main and "94.5 %" in cheats and "0.250" not in cheats


def test_there_is_no_second_table_without_cheats(tmp_path: Path) -> None:
    report = Report("", {})
    report.add("words", "errors", {"real": 1.0, "student": 3.0})
    assert report.columns(cheats=True) == [] and not set(report.columns()) & set(CHEATS)
    report.save(tmp_path)
    for name in ("table.txt", "index.html"):
        assert "must look bad" not in (tmp_path / name).read_text()


def test_normalised_new_sentences_are_themselves() -> None:
    assert all(" ".join(normalise_words(text)) == text for text in new_sentences(50, [], seed=3))
