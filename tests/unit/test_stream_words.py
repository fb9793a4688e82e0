"""Word errors along a stream land in the window in which their word was due; hand cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.evaluation_set import Truth
from pipelines.evaluating.long_figures import (
    Gauge,
    LongTake,
    StreamFigures,
    figures_of,
    heard_words,
    joined_streams,
    pieces,
    score_against,
    slope_of_times,
    spoken_stream,
    state_bytes,
)
from pipelines.evaluating.long_rows import _row, _shuffled, long_picture_rows
from pipelines.evaluating.material import Rendering, Subject
from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.evaluation.drift import DriftScore
from streamchar.evaluation.open_loop import OpenLoopOrchestrator, units_at_rate
from streamchar.evaluation.report import Report
from streamchar.evaluation.stream_words import dead_stream, due_times, stream_words
from streamchar.evaluation.sync import curve_score
from streamchar.streaming.timing import TimingRecord
from streamchar.transcript import Word
from tests import tiny_models as tiny

TEXT = ["place", "red", "at", "c", "nine", "again", "set", "blue", "with", "k", "four", "please"]
EVEN = [2.0, 4.0, 6.0, 8.0]
"""Two words a chunk; the last four are not due."""


def evenly(words: list[str], first: float = 0.0, last: float = 4.0) -> list[Word]:
    """Heard words that share the seconds from ``first`` to ``last``."""
    step = (last - first) / max(len(words), 1)
    return [Word(w, first + i * step, first + (i + 1) * step) for i, w in enumerate(words)]


class Told:
    """A recogniser that hears the words that it was told, one list per call."""

    def __init__(self, *heard: list[Word]) -> None:
        self.left = list(heard)

    def hear(self, wave: torch.Tensor) -> list[Word]:
        return self.left.pop(0)


def test_what_is_said_as_written_has_no_errors():
    found = stream_words(TEXT, evenly(TEXT[:8]), EVEN, 1.0, 2)
    assert (found.wer, found.missed, found.words, found.stalled) == (0.0, 0.0, 8, 0.0)
    assert found.counts == (4, 4) and found.errors == (0.0, 0.0)


def test_errors_count_where_their_word_was_due():
    heard = TEXT[:5] + ["now"] + TEXT[6:8]  # the sixth word, in the second half
    found = stream_words(TEXT, evenly(heard), EVEN, 1.0, 2)
    assert found.errors == (0.0, 1.0) and found.window(1) == 0.25 and found.missed == 0


def test_skipped_words_are_missed_and_repeated_ones_are_errors():
    skipped = stream_words(TEXT, evenly(TEXT[:2] + TEXT[4:8]), EVEN, 1.0, 2)
    assert skipped.missed == 0.25 and skipped.errors == (2.0, 0.0)
    repeated = stream_words(TEXT, evenly(TEXT[:8] + TEXT[6:8]), EVEN, 1.0, 2)
    assert repeated.missed == 0 and repeated.errors == (0.0, 2.0)


def test_words_are_laid_on_the_thirds_of_their_chunk():
    heard = [*TEXT[:1], "now", *TEXT[2:5], *TEXT[6:8]]  # of the second words of four chunks one is another, one missing
    found = stream_words(TEXT, evenly(heard), EVEN, 1.0, 2)
    assert (found.thirds[0], found.thirds[2]) == (0.0, 0.5) and np.isnan(found.thirds[1])
    three = stream_words(TEXT, evenly(TEXT[:5]), [3.0, 6.0], 1.5, 2)
    assert three.thirds == (0.0, 0.0, 0.5)  # the middle of the third word of three is in the last third
    on_borders = stream_words(TEXT, [], [n + 0.5 for n in range(9)], 1.32, 2)
    assert on_borders.thirds[0] == 1.0 and np.isnan(on_borders.thirds[1:]).all()


def test_insertions_count_when_they_are_heard():
    early = evenly(["now", "now"], 0.0, 0.1) + evenly(TEXT[:8], 0.1, 4.0)
    late = evenly(TEXT[:8], 0.0, 1.9) + evenly(["now", "now"], 3.0, 4.5)  # the last one past the stream's end
    assert stream_words(TEXT, early, EVEN, 1.0, 2).errors == (2.0, 0.0)
    assert stream_words(TEXT, late, EVEN, 1.0, 2).errors == (0.0, 2.0)


def test_babble_after_a_pointer_that_stopped_is_charged_to_the_windows_that_babble():
    pointers = [5.0, *[10.0] * 9]  # the tenth word at 20 % of the stream
    heard = evenly(TEXT[:10], 0.0, 2.0) + evenly(["babble"] * 40, 2.0, 10.0)
    found = stream_words(TEXT, heard, pointers, 1.0, 5)
    assert found.counts == (10, 0, 0, 0, 0) and found.errors == (0.0, 10.0, 10.0, 10.0, 10.0)
    assert [found.window(k) for k in range(5)] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert (found.wer, found.missed, found.stalled) == (4.0, 0.0, 0.8)


def test_a_window_without_a_due_word_is_wholly_wrong_also_in_silence():
    found = stream_words(TEXT, evenly(TEXT[:2], 0.0, 1.0), [2.0, 2.0, 2.0, 2.0], 1.0, 4)
    assert sum(found.counts) == 2 and found.counts[3] == 0
    assert found.window(3) == 1.0 and np.isfinite([found.window(k) for k in range(4)]).all()


def test_nothing_heard_is_everything_missed():
    found = stream_words(TEXT, [], EVEN, 1.0, 2)
    assert (found.wer, found.missed) == (1.0, 1.0) and found.errors == (4.0, 4.0)
    with pytest.raises(InputError, match="passed no word"):
        stream_words(TEXT, evenly(["red"]), [0.0, 0.4], 1.0, 2)


def test_a_dead_stream_has_missed_what_the_constant_rate_made_due():
    dead = dead_stream(TEXT, 4, 2.0, 1.0, 2)
    assert (dead.wer, dead.missed, dead.words, dead.counts) == (1.0, 1.0, 8, (4, 4))
    assert dead_stream(TEXT, 4, 0.01, 1.0, 2).words == 1
    assert score_against(TEXT, evenly(["red"]), [0.0, 0.1, 0.2, 0.4], gauge()) == dead


def test_rows_say_how_many_streams_are_in_them():
    report = Report("t", {})
    nan = float("nan")
    _row(report, "g", "n", {"student": [1.0, nan, 3.0], "no_sink": [1.0, 1.0, 1.0]}, note="as is", unit="%")
    assert report.rows[0].values == {"student": 2.0, "no_sink": 1.0}
    assert report.rows[0].note == "as is; student: 2 of 3 streams could be measured"


def test_shuffled_transcripts_score_what_was_heard_against_another_streams_text():
    sound, other = np.zeros(100, np.float32), TEXT[::-1]
    streams = [spoken_stream(sound, text, EVEN, Told(evenly(text[:8])), gauge()) for text in (TEXT, other)]
    assert [s.words.wer for s in streams] == [0.0, 0.0] and streams[0].repeats.inserted == 0
    assert _shuffled(streams, gauge())["baseline"] > 50
    assert _shuffled([streams[0], streams[0]], gauge()) == {} and _shuffled(streams[:1], gauge()) == {}


def test_heard_words_have_their_seconds_in_the_whole():
    clock = tiny_clock()
    sound = np.ones(16000 * 30, np.float32)
    first = len(pieces(sound, clock)[0]) / 16000
    words = heard_words(Told([Word("a", 1.0, 2.0)], [Word("b", 0.5, 1.0)]), sound, clock)
    assert words == [Word("a", 1.0, 2.0), Word("b", first + 0.5, first + 1.0)]


def test_clips_are_joined_to_streams_that_end_at_a_clips_end():
    clips = [clip("a", ["one", "two"], 2.0), clip("b", ["three"], 1.0), clip("c", [], 1.0)]
    streams = list(joined_streams(clips, "real", 2, 3.5, gauge()))
    assert [words for _, words, _ in streams] == [["one", "two", "three"]] * 2  # c has no words, then a anew
    sound, _, pointers = streams[0]
    assert len(sound) == 16000 * 3 and pointers == [1.0, 2.0, 3.0]
    assert not list(joined_streams(clips, "codec", 2, 3.5, gauge()))
    assert len(next(joined_streams(clips, "real", 1, 0.5, gauge()))[0]) == 16000 * 2  # one clip at least


def test_drift_sees_the_stream_to_its_end():
    frames = np.zeros((104, 16, 16, 3), np.uint8)
    frames[84:] = 255  # all of the last window, which rounding up would leave out
    take = LongTake(Rendering(frames, np.zeros(1000, np.float32), [1.0]), TimingRecord(1.0), (1, 1), 1000)
    found = figures_of(take, TEXT, None, Gauge(tiny_clock(), 2.0, 5, 4))
    assert len(found.drift.curve) == 4 and found.drift.last > 0 and found.drift.curve[-2][1] < found.drift.last


def test_words_are_due_when_the_pointer_passes_them_and_not_while_it_waits():
    assert np.allclose(due_times([1.0, 1.0, 2.0], 1.0, 2), [0.5, 2.5])


def test_long_sound_is_cut_in_its_pauses():
    sound = np.ones(16000 * 50, np.float32)
    pause = slice(16000 * 19, 16000 * 19 + 3200)
    sound[pause] = 0
    parts = pieces(sound, tiny_clock())
    assert sum(map(len, parts)) == len(sound) and len(parts) == 3
    assert pause.start < len(parts[0]) < pause.stop


def test_the_open_loop_pointer_moves_at_its_rate_whatever_it_hears():
    inner = tiny.orchestrator().eval()
    c = tiny.conditions(2)
    loop = OpenLoopOrchestrator(inner, 1.5)
    prefix = loop.prefix(c)
    left = c.todo.mask.sum(1).float()
    for sound in (torch.zeros(2, tiny.CLOCK.audio_latents, tiny.AUDIO), torch.randn(2, tiny.CLOCK.audio_latents,
                                                                                   tiny.AUDIO)):
        assert torch.equal(loop.point(prefix, sound), (c.cursor + 1.5).minimum(left))
        sigma = torch.full((2,), 0.5)
        assert torch.equal(loop.block(prefix, sound, sigma), inner.block(inner.prefix(c), sound, sigma))


def test_the_open_loop_counts_in_the_texts_units():
    class Halves:
        width = 1

        def encode(self, word: str) -> list[list[int]]:
            return [[1]] * (1 + (len(word) > 3))

    assert units_at_rate(["to", "speak"], Halves(), 2.0) == 3.0
    with pytest.raises(InputError, match="empty"):
        units_at_rate([], Halves(), 2.0)


def test_figures_of_constancy():
    assert state_bytes({"a": torch.zeros(3), "b": [torch.zeros(2, dtype=torch.int64), "x"]}) == 12 + 16
    assert slope_of_times([9.0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]) == 2.0


def tiny_clock() -> ChunkClock:
    return ChunkClock(25.0, 33, 25.0, 16000)


def gauge() -> Gauge:
    """Chunks of one second, two words each by the constant rate, two windows."""
    return Gauge(ChunkClock(25.0, 25, 25.0, 16000), 2.0, 2, 4)


def clip(key: str, words: list[str], seconds: float) -> Subject:
    """A held-out clip whose words share its time."""
    empty = torch.zeros(0)
    truth = Truth(key, " ".join(words), evenly(words, 0.0, seconds), seconds, "", "", "", {}, empty, empty)
    sound = Rendering(np.zeros((0, 4, 4, 3), np.uint8), np.zeros(int(16000 * seconds), np.float32))
    return Subject(key, truth.text, None, {"real": sound}, None, truth)


def test_the_lag_of_streams_is_that_of_their_mean_curve_with_an_interval() -> None:
    """Three flat curves whose own peaks are chance, of which the mean peaks where all of them are raised."""

    nan = float("nan")

    def stream(first: int, last: int) -> StreamFigures:
        windows = []
        for chance in (first, last):
            curve = np.full(11, 0.1)
            curve[5 + 1] = 0.3  # one frame
            curve[5 + chance] = 0.35
            windows.append(curve_score(curve))
        return StreamFigures(DriftScore(0.0, 0.0, 0.0, ()), windows, nan, 0.0, (1, 1), [1.0, 1.0, 1.0], (nan, nan))

    streams = [stream(-4, 5), stream(4, -3), stream(-2, 3)]
    found = {"student": streams, "open_loop": [replace(s, sync=[]) for s in streams]}  # windows too short
    report = Report("", {})
    long_picture_rows(report, found)
    rows = {row.name: row for row in report.rows}
    for window in ("first window", "last window"):
        lag, correlation = rows[f"lag, {window}"], rows[f"correlation, {window}"]
        assert lag.values["student"] == 1 and np.mean([s.sync[-1].lag for s in streams]) > 1.5
        assert correlation.values["student"] == pytest.approx(0.3)
        low, high = lag.intervals["student"]
        assert low <= 1 <= high and low < high  # drawn anew, a chance peak comes first now and then
        assert np.isnan(lag.values["open_loop"]) and "open_loop" not in lag.intervals
