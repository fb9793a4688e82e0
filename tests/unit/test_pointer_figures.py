"""Figures of the pointer's alignment from the records of held-out streams."""

from callbacks.pointer_logging import pointer_figures
from streamchar.evaluation.records import PointerRecord


def record(chunk, predicted, true, constant, words=4, stalled=False):
    return PointerRecord("a", chunk, predicted, true, constant, words, stalled)


def test_mean_errors_in_words_and_stalls():
    figures = pointer_figures([record(0, 1.5, 1.0, 2.0), record(1, 2.0, 3.0, 4.0, stalled=True)])
    assert figures == {"pointer/error_words": 0.75, "pointer/constant_rate_error": 1.0, "pointer/stalls": 1.0}


def test_chunks_past_the_texts_end_count_for_neither():
    figures = pointer_figures([record(0, 4.0, 4.0, 2.0), record(1, 4.0, 4.0, 4.0)])
    assert figures["pointer/constant_rate_error"] == 2.0
