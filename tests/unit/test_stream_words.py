"""Word errors along a stream land in the window in which their word was due; hand cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.evaluating.long_figures import pieces, slope_of_times, state_bytes
from streamchar.errors import InputError
from streamchar.evaluation.open_loop import OpenLoopOrchestrator
from streamchar.evaluation.stream_words import due_times, stream_words
from tests import tiny_models as tiny

TEXT = ["place", "red", "at", "c", "nine", "again", "set", "blue", "with", "k", "four", "please"]
EVEN = [2.0, 4.0, 6.0, 8.0]
"""Two words a chunk; the last four are not due."""


def test_what_is_said_as_written_has_no_errors():
    found = stream_words(TEXT, TEXT[:8], EVEN, 1.0, 2)
    assert (found.wer, found.missed, found.words) == (0.0, 0.0, 8)
    assert found.counts == (4, 4) and found.errors == (0.0, 0.0)


def test_errors_count_where_their_word_was_due():
    heard = TEXT[:5] + ["now"] + TEXT[6:8]  # the sixth word, in the second half
    found = stream_words(TEXT, heard, EVEN, 1.0, 2)
    assert found.errors == (0.0, 1.0) and found.window(1) == 0.25 and found.missed == 0


def test_skipped_words_are_missed_and_repeated_ones_are_errors():
    skipped = stream_words(TEXT, TEXT[:2] + TEXT[4:8], EVEN, 1.0, 2)
    assert skipped.missed == 0.25 and skipped.errors == (2.0, 0.0)
    repeated = stream_words(TEXT, TEXT[:8] + TEXT[6:8], EVEN, 1.0, 2)
    assert repeated.missed == 0 and repeated.errors == (0.0, 2.0)


def test_nothing_heard_is_everything_missed():
    found = stream_words(TEXT, [], EVEN, 1.0, 2)
    assert (found.wer, found.missed) == (1.0, 1.0) and found.errors == (4.0, 4.0)
    with pytest.raises(InputError, match="passed no word"):
        stream_words(TEXT, ["red"], [0.0, 0.4], 1.0, 2)


def test_words_are_due_when_the_pointer_passes_them_and_not_while_it_waits():
    assert np.allclose(due_times([1.0, 1.0, 2.0], 1.0, 2), [0.5, 2.5])


def test_window_without_words_has_no_score():
    found = stream_words(TEXT, TEXT[:2], [2.0, 2.0, 2.0, 2.0], 1.0, 4)
    assert found.counts == (1, 1, 0, 0) or found.counts == (2, 0, 0, 0)
    assert np.isnan(found.window(3))


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


def test_figures_of_constancy():
    assert state_bytes({"a": torch.zeros(3), "b": [torch.zeros(2, dtype=torch.int64), "x"]}) == 12 + 16
    assert slope_of_times([9.0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]) == 2.0


def tiny_clock():
    from streamchar.clock import ChunkClock

    return ChunkClock(25.0, 33, 25.0, 16000)
