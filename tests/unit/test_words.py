"""Word errors by hand-made cases, and the recogniser's own helpers that need no sound."""

import math
from collections import Counter

import pytest
import torch

from streamchar.errors import InputError
from streamchar.evaluation.bigram import ORDERS, bigram_arpa, in_rows
from streamchar.evaluation.pronunciation import spell_phones
from streamchar.evaluation.recogniser import grid_sentences, prepare_sound
from streamchar.evaluation.words import score_words, shuffled_score


def test_errors_are_counted_over_words():
    score = score_words(["place red at c", "set blue now"], ["place red c", "set blue now please"])
    assert score.wer == pytest.approx(2 / 7)
    assert score.words == 7 and score.sentences == 2
    assert score.low <= score.wer <= score.high
    assert 0 < score.cer < 1


def test_silence_and_case():
    assert score_words(["bin blue"], [""]).wer == 1.0
    assert score_words(["Bin, blue!"], ["bin blue"]).wer == 0.0
    extra = score_words(["", "bin"], ["now", "bin"])
    assert extra.wer == 1.0


def test_interval_is_deterministic_and_narrows():
    few = score_words(["a b", "c d"], ["a b", "c x"])
    many = score_words(["a b", "c d"] * 50, ["a b", "c x"] * 50)
    assert few == score_words(["a b", "c d"], ["a b", "c x"])
    assert many.high - many.low < few.high - few.low
    assert few.cer_low < few.cer < few.cer_high
    assert many.cer_high - many.cer_low < few.cer_high - few.cer_low


def test_shuffled_transcripts_score_badly():
    texts = ["bin blue at a one now", "set red by b two soon", "lay white in c three again"]
    assert score_words(texts, texts).wer == 0
    assert shuffled_score(texts, texts).wer > 0.8
    with pytest.raises(InputError, match="two sentences"):
        shuffled_score(["a"], ["a"])


def test_refusals():
    with pytest.raises(InputError, match="1 references but 2"):
        score_words(["a"], ["a", "b"])
    with pytest.raises(InputError, match="nothing to score"):
        score_words([""], ["a"])


def test_bigram_chances_sum_to_one():
    arpa = bigram_arpa([["a", "b"], ["a", "c"], ["b"]])
    unigrams, bigrams, backoff = {}, {}, {}
    part = None
    for line in arpa.splitlines():
        if line.startswith("\\"):
            part = line
        elif line and part == "\\1-grams:":
            chance, word, weight = line.split()
            unigrams[word], backoff[word] = 10 ** float(chance), 10 ** float(weight)
        elif line and part == "\\2-grams:":
            chance, first, second = line.split()
            bigrams[first, second] = 10 ** float(chance)
    words = [w for w in unigrams if w != "<s>"]
    for first in ("<s>", "a", "b", "c"):
        total = sum(bigrams.get((first, w), backoff[first] * unigrams[w]) for w in words)
        assert math.isclose(total, 1, abs_tol=1e-3)
    assert arpa.count("</s>") == 3  # its own chance, and two words that end a sentence


def test_a_language_in_rows_says_every_sentence_and_what_may_follow_it():
    sentences = [f"begin {i} end" for i in range(25)]
    rows = in_rows(sentences)
    assert len(rows) == ORDERS * 3
    assert Counter(" ".join(rows).split()) == {w: ORDERS * n for w, n in Counter(" ".join(sentences).split()).items()}
    assert " end begin" in bigram_arpa([row.split() for row in rows])
    assert " end begin" not in bigram_arpa([text.split() for text in sentences]) and in_rows([]) == []


def test_unknown_words_get_phones():
    assert spell_phones("shmeck") == ["SH", "M", "EH", "K"]
    assert spell_phones("lake")[-1] == "K"
    assert spell_phones("日本") == ["AH"]


def test_grid_sentences_are_told_from_others():
    for text, count in (("place red at c nine again", 1), ("place red at c nine again bin blue by v one now", 2),
                        ("place red at c nine again bin blue by w one now", 0), ("hello there", 0)):
        assert grid_sentences(text.split()) == count


def test_prepared_sound_is_padded_and_never_digitally_silent():
    quiet = prepare_sound(torch.zeros(1600))
    assert len(quiet) == 1600 + 2 * 4800
    assert (prepare_sound(torch.zeros(1600)) == quiet).all() and quiet.std() > 0
    with pytest.raises(InputError):
        prepare_sound(torch.tensor([float("nan")]))
