"""Rows of the evaluation's table on odd material: short clips, other rates of sound, several seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress

from pipelines.evaluating import given, pointers, syncnets
from pipelines.evaluating.devices import Devices
from pipelines.evaluating.distributions import _row, deep_rows, latent_rows
from pipelines.evaluating.looks import drift_rows
from pipelines.evaluating.material import SEED_MARK, Rendering, Subject
from pipelines.evaluating.pointers import aligned_pointer_rows, pointer_rows
from pipelines.evaluating.shares import add_shares, points_above
from pipelines.evaluating.syncnets import syncnet_rows
from pipelines.evaluating.words import _errors_of, _repeats, _slots
from streamchar.clock import ChunkClock
from streamchar.evaluation.config import EvaluateConfig
from streamchar.evaluation.pointer_track import PointerTrack
from streamchar.evaluation.recogniser import GRID_SLOTS
from streamchar.evaluation.report import Report, Row
from streamchar.evaluation.syncnet_offsets import SyncNetScore
from streamchar.transcript import Word
from streamchar.types import Latents

CLOCK = ChunkClock(fps=25, chunk_frames=17, audio_rate=25, sample_rate=16000)
TEXT = "place red at c nine again"


class Known:
    """What a held-out clip's own latents are, as far as distances look."""

    def __init__(self, chunks: int) -> None:
        generator = torch.Generator().manual_seed(chunks)
        size = CLOCK.audio_start(max(chunks - 1, 0)) + CLOCK.audio_latents
        self.video = torch.randn(max(chunks, 1), 4, 5, 6, 6, generator=generator)
        self.audio = torch.randn(size if chunks else CLOCK.audio_latents - 1, 7, generator=generator)


def with_chunks(key: str, real: int, student: int) -> Subject:
    made = [Latents(torch.randn(1, 4, 5, 6, 6), torch.randn(1, CLOCK.audio_latents, 7)) for _ in range(student)]
    return Subject(key, TEXT, None, truth=Known(real), latents={"student": made})  # type: ignore[arg-type]


def test_a_clip_of_less_than_a_chunk_does_not_end_the_evaluation() -> None:
    report = Report("", {})
    latent_rows(report, [with_chunks("short", 0, 1), with_chunks("a", 5, 6), with_chunks("b", 6, 5)], CLOCK)
    assert {r.name: set(r.values) for r in report.rows} == dict.fromkeys(
        ("Frechet distance, video latents", "Frechet distance, audio latents"), {"student", "baseline"})
    only_short = Report("", {})
    latent_rows(only_short, [with_chunks("short", 0, 1)], CLOCK)
    assert not only_short.rows


def test_clips_of_two_chunks_do_not_compare_beginnings_with_ends() -> None:
    """Their first chunks are another distribution than their second ones; what is drawn alike is near all the same."""
    generator = torch.Generator().manual_seed(0)
    begin, end = 0.0, 4.0

    def pool(*means: float) -> torch.Tensor:
        return torch.tensor(means)[:, None] + torch.randn(2, 6, generator=generator)

    report = Report("", {})
    _row(report, [{"real": pool(begin, end), "student": pool(begin, end), "teacher": pool(begin, begin)}
                  for _ in range(200)], "Frechet distance", "chunks")
    values = report.rows[0].values
    assert max(values["student"], values["baseline"]) < 1 < 10 < values["teacher"]
    assert "200 chunks a side" in report.rows[0].note


def test_distances_of_ten_clips_have_an_interval_that_holds_what_such_distances_are_on_average() -> None:
    generator = torch.Generator().manual_seed(0)

    def distances(clips: int, size: int = 6) -> Row:
        report = Report("", {})
        _row(report, [{c: 0.5 * (c == "student") + torch.randn(4, size, generator=generator)
                       for c in ("real", "student")} for _ in range(clips)], "Frechet distance", "chunks")
        return report.rows[0]

    mean = float(np.mean([distances(12).values["student"] for _ in range(100)]))
    found = [distances(12).intervals["student"] for _ in range(40)]
    assert sum(low <= mean <= high for low, high in found) > 32 and np.mean([h - low for low, h in found]) < 2 * mean
    assert set(distances(12).intervals) == {"student", "baseline"}
    assert not distances(9).intervals and not distances(10, 513).intervals


def test_the_slope_of_a_long_stream_has_an_interval_over_its_windows() -> None:
    rng = np.random.default_rng(0)

    def stream(windows: int) -> Rendering:
        """It darkens, not evenly."""
        light = 200 - 4 * np.arange(windows) + rng.normal(0, 6, windows)
        frames = np.repeat(light.clip(0, 255).astype(np.uint8), 5)[:, None, None, None]
        return Rendering(np.broadcast_to(frames, (len(frames), 16, 16, 3)), np.zeros(0, np.float32))

    report = Report("", {})
    drift_rows(report, {"real": stream(4), "student": stream(20)}, CLOCK, 5 / CLOCK.fps)
    slope, gain = report.rows
    low, high = slope.intervals["student"]
    assert 0 < low < slope.values["student"] < high
    assert set(slope.intervals) == {"student"} and not gain.intervals


def test_features_are_of_clips_that_stand_beside_a_recording_and_of_no_others() -> None:
    seen: list[int] = []

    def features(frames: np.ndarray) -> torch.Tensor:
        seen.append(len(frames))
        return torch.from_numpy(frames[:, 0, 0].astype(np.float32))

    def subject(**frames: int) -> Subject:
        rng = np.random.default_rng(0)
        quiet = np.zeros(0, np.float32)
        return Subject("", TEXT, None, {c: Rendering(rng.integers(0, 255, (n, 4, 4, 3), np.uint8), quiet)
                                        for c, n in frames.items()})

    devices = Devices(inception=features)  # type: ignore[arg-type]
    report = Report("", {})
    deep_rows(report, [subject(given=20)], devices)
    assert not seen and not report.rows  # a folder's clips: hours of work for no row
    deep_rows(report, [subject(real=20, student=16), subject(codec=30, student=30)], devices)
    assert seen == [20, 16] and set(report.rows[0].values) == {"student", "baseline"}


def test_syncnets_hear_16_khz_whatever_the_codec_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int, float]] = []

    def measure(net: object, frames: np.ndarray, sound: np.ndarray, fps: float, rate: int) -> SyncNetScore:
        heard.append((len(sound), rate, float(np.abs(np.fft.rfft(sound)).argmax()) / len(sound) * rate))
        return SyncNetScore(1.0, 1.0, 0, (1.0,))

    monkeypatch.setattr(syncnets, "sync_distance", measure)
    monkeypatch.setattr(syncnets, "field_sync_distance", measure)
    clock = ChunkClock(fps=25, chunk_frames=17, audio_rate=25, sample_rate=24000)
    tone = np.sin(2 * np.pi * 400 * np.arange(48000) / 24000).astype(np.float32)
    subject = Subject("a", TEXT, None, {"real": Rendering(np.zeros((50, 4, 4, 3), np.uint8), tone)})
    with Progress(disable=True) as bar:
        syncnet_rows(Report("", {}), [subject], object(), Devices(syncnet=object()), clock, bar)  # type: ignore[arg-type]
    assert [(n, rate) for n, rate, _ in heard] == [(32000, 16000)] * 2
    assert all(hertz == pytest.approx(400, abs=1) for _, _, hertz in heard)


def test_seeds_of_one_clip_do_not_narrow_an_interval() -> None:
    pytest.importorskip("jiwer")
    words = TEXT.split()

    def heard(seeds: int) -> dict[str, list[tuple[Subject, str]]]:
        """Half of the clips are heard without an error, half with a wrong letter and a word said twice."""
        bad = " ".join([*words[:3], "k", *words[4:], words[-1]])
        return {"student": [(Subject(f"clip{i}" + f"{SEED_MARK}{n}" * (n > 0), TEXT, None, seed=n),
                             bad if i % 2 else TEXT) for n in range(seeds) for i in range(12)]}

    for rows in (_slots, _repeats):
        one, three = Report("", {}), Report("", {})
        rows(one, heard(1))
        rows(three, heard(3))
        assert [r.values for r in one.rows] == [r.values for r in three.rows]
        assert [r.intervals for r in one.rows] == [r.intervals for r in three.rows]
    values = {r.name: r for r in three.rows}
    assert values["repeated words"].values["student"] == pytest.approx(100 / 12)
    low, high = values["repeated words"].intervals["student"]
    assert low < 100 / 12 < high


def slots_of(*pairs: tuple[str, str]) -> list[float]:
    report = Report("", {})
    _slots(report, {"student": [(Subject(f"clip{i}", said, None), heard) for i, (said, heard) in enumerate(pairs)]})
    return [row.values["student"] for row in report.rows]


def test_a_word_too_many_or_too_few_moves_no_later_slot() -> None:
    pytest.importorskip("jiwer")
    assert slots_of((TEXT, "place red at red at c nine again")) == [100] * 6
    assert slots_of((TEXT, "red at c nine again")) == [0] + [100] * 5
    assert slots_of((TEXT, "place red at nine soon"), (TEXT, TEXT)) == [100, 100, 100, 50, 100, 50]
    assert slots_of((f"{TEXT} {TEXT}", f"place at c nine again {TEXT}")) == [100, 50, 100, 100, 100, 100]
    assert slots_of((TEXT, "")) == [0] * 6


def test_whole_sentences_of_the_grammar_are_right_where_word_by_word_they_are() -> None:
    pytest.importorskip("jiwer")
    rng = np.random.default_rng(0)
    for _ in range(200):
        said, heard = ([str(rng.choice(words[:2])) for _ in range(2) for words in GRID_SLOTS.values()]
                       for _ in range(2))
        if any(a == b for a, b in zip(said, heard, strict=True)):  # else a shift by a sentence costs no more
            by_place = [50 * sum(said[i] == heard[i] for i in (k, k + 6)) for k in range(6)]
            assert slots_of((" ".join(said), " ".join(heard))) == by_place


def test_points_above_the_floor_are_drawn_clip_by_clip() -> None:
    """Half of the clips are hard for the codec; the student is always one word of six worse, the teacher equal."""
    pytest.importorskip("jiwer")
    words = TEXT.split()

    def heard(wrong: int) -> str:
        return " ".join(["x"] * wrong + words[wrong:])

    def column(more: int, seeds: int = 1) -> list[tuple[str, float, float]]:
        return _errors_of([(Subject(f"clip{i}" + f"{SEED_MARK}{n}" * (n > 0), TEXT, None), heard(3 * (i % 2) + more))
                           for n in range(seeds) for i in range(10)])

    report = Report("", {})
    points_above(report, {"real": column(0), "codec": column(0), "student": column(1, 3), "teacher": column(0)})
    rows = {r.name: r for r in report.rows}
    floor, teacher = rows["word errors above the codec floor"], rows["word errors above the teacher"]
    assert floor.values == pytest.approx({"student": 100 / 6, "teacher": 0})
    assert floor.intervals["student"] == pytest.approx((100 / 6, 100 / 6))  # alone it would be some 15 points wide
    assert teacher.values == pytest.approx({"student": 100 / 6})
    points_above(empty := Report("", {}), {"given": column(1)})
    assert not empty.rows


def test_pointer_errors_are_pooled_over_chunks_with_an_interval_over_clips() -> None:
    """A clip of four chunks that is right and one of two that is half a word behind."""
    good = PointerTrack([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0], [4.0] * 4)
    bad = PointerTrack([0.5, 1.5, 2.0], [1.0, 2.0, 2.0], [0.0, 1.0, 2.0], [2.0] * 3)  # the last chunk has no text left
    report = Report("", {})
    pointer_rows(report, [good, bad, PointerTrack()], [good, bad, PointerTrack()], 1.0, "student")
    for row in report.rows:
        assert row.values["student"] == pytest.approx(1 / 6)
        low, high = row.intervals["student"]
        assert low == 0 and high == pytest.approx(0.5)
    pointer_rows(alone := Report("", {}), [good], [good], 1.0, "student")
    assert not any(row.intervals for row in alone.rows)


def test_seeds_of_one_clip_are_one_clip_to_the_pointers_interval_too(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [Word(w, 0.1 + 0.2 * i, 0.2 + 0.2 * i) for i, w in enumerate(TEXT.split())]
    monkeypatch.setattr(pointers, "PocketsphinxAligner", object)
    monkeypatch.setattr(pointers, "aligned_words", lambda _, s, *__: None if s.key == "babble" else words)
    ends = pointers.true_positions(words, 2, float(CLOCK.chunk_seconds)).tolist()

    def stream(key: str, off: float) -> Subject:
        take = Rendering(np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, np.float32), [e - off for e in ends])
        return Subject(key, TEXT, None, {"student": take})

    report = Report("", {})
    seeds = [stream(f"a{SEED_MARK}{n}", 0.2) for n in (1, 2)]
    aligned_pointer_rows(report, [stream("a", 0.2), stream("babble", 9.0), *seeds], 1.0, CLOCK, "student")
    assert report.rows[0].values["student"] == pytest.approx(0.2) and not report.rows[0].intervals
    assert "3 of 4 streams could be aligned" in report.rows[0].note
    aligned_pointer_rows(report, [stream("a", 0.2), *seeds, stream("b", 0.6)], 1.0, CLOCK, "student")
    assert report.rows[1].values["student"] == pytest.approx(0.3)
    assert report.rows[1].intervals["student"] == pytest.approx((0.2, 0.6))


def test_shares_of_nothing_and_of_one_clip() -> None:
    report = Report("", {})
    add_shares(report, "g", "n", {"real": [("a", 0, 0)], "student": [("a", 1, 2), ("a", 2, 2)]})
    assert np.isnan(report.rows[0].values["real"]) and report.rows[0].values["student"] == 75
    assert not report.rows[0].intervals  # one clip, however many streams: no interval


def test_a_text_that_begins_with_its_encodings_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b'{"text": "bin blue"}')
    assert given._told(tmp_path / "a.mp4")["text"] == "bin blue"


def test_a_preset_that_sets_a_teacher_may_score_a_folder() -> None:
    assert EvaluateConfig(folder="clips", teacher=True).problems() == []
    for wrong in (EvaluateConfig(folder="clips", gate=True), EvaluateConfig(folder="clips", protocol="long")):
        assert any("evaluate.gate=false and protocol=short" in p for p in wrong.problems())
