"""Words heard in espeak's speech, and when; needs pocketsphinx and espeak-ng."""

import pytest
import torch

from pipelines.evaluating.sentences import new_sentences
from streamchar.evaluation.bigram import in_rows
from streamchar.evaluation.recogniser import (
    GRID_SLOTS,
    PocketsphinxAligner,
    PocketsphinxBigram,
    PocketsphinxGrid,
    recogniser_for,
)
from streamchar.evaluation.words import score_words

pytest.importorskip("pocketsphinx", reason="needs pocketsphinx (the eval extra)")
pytest.importorskip("espeakng_loader", reason="needs espeak-ng (the puppet extra)")

GRID = ["place red at c nine again", "bin blue by q two now", "set white in m four please", "lay green with f six soon"]
FREE = ["the morning train was late again", "nobody likes to wait in the rain", "she opened the window and waited"]


@pytest.fixture(scope="module")
def spoken():
    from datamodules.puppet.speech import Voice, speak
    voices = (Voice("en-us", 130, 50, 50), Voice("en+f2", 130, 55, 50))
    out = {}
    for i, text in enumerate(GRID + FREE):
        speech = speak(text.split(), voices[i % 2], 16000)
        wave = torch.nn.functional.pad(torch.from_numpy(speech.wave), (3200, 3200))
        out[text] = (wave, [(w.start + 0.2, w.end + 0.2) for w in speech.words])
    return out


def heard(recogniser, waves):
    return [" ".join(w.text for w in recogniser.hear(wave)) for wave in waves]


def test_grid_sentences_are_heard_and_noise_is_not(spoken):
    recogniser = PocketsphinxGrid()
    waves = [spoken[t][0] for t in GRID]
    first = heard(recogniser, waves)
    assert score_words(GRID, first).wer < 0.25
    noise = [torch.randn(len(w), generator=torch.Generator().manual_seed(i)) * 0.1 for i, w in enumerate(waves)]
    assert score_words(GRID, heard(recogniser, noise)).wer > 0.5


def test_words_and_times_have_no_memory_of_the_sounds_before(spoken):
    recogniser, hiss = PocketsphinxGrid(), torch.Generator().manual_seed(1)
    loud = 0.3 * torch.randn(48000, generator=hiss)
    for text in GRID:
        wave = spoken[text][0]
        wave = wave + 0.03 * torch.randn(len(wave), generator=hiss)
        recogniser.hear(loud)
        assert recogniser.hear(wave) == PocketsphinxGrid().hear(wave)


def test_several_grid_sentences(spoken):
    text = " ".join(GRID[:2])
    recogniser = recogniser_for([*GRID, text])
    assert score_words([text], heard(recogniser, [torch.cat([spoken[t][0] for t in GRID[:2]])])).wer < 0.35


def test_free_sentences_by_bigram(spoken):
    recogniser = recogniser_for([*FREE, "the rain was late and nobody waited", "a window likes the brillig morning"])
    assert isinstance(recogniser, PocketsphinxBigram)
    assert score_words(FREE, heard(recogniser, [spoken[t][0] for t in FREE])).wer < 0.25


def test_in_a_stream_unclear_last_words_of_sentences_are_not_left_out():
    from datamodules.puppet.speech import Voice, speak
    texts = new_sentences(60, [], 0)
    said = " ".join(texts[:6])
    wave = torch.cat([torch.from_numpy(speak(t.split(), Voice("en-us", 150, 50, 50), 16000).wave) for t in texts[:6]])
    noise = torch.randn(len(wave), generator=torch.Generator().manual_seed(1)) * wave.square().mean().sqrt()
    unclear = [wave + noise * 10 ** (-db / 20) for db in (5, 2)]
    alone, row = (heard(PocketsphinxBigram(language), unclear) for language in (texts, in_rows(texts)))
    assert score_words([said] * 2, row).wer < score_words([said] * 2, alone).wer - 0.05
    last = [sum(text.count(word) for word in GRID_SLOTS["adverb"] for text in texts) for texts in (alone, row)]
    assert last[1] > last[0]


def test_alignment_finds_the_words_in_time(spoken):
    aligner = PocketsphinxAligner()
    gaps = []
    for text in GRID:
        wave, times = spoken[text]
        words = aligner.align(wave, text.split())
        assert words is not None and [w.text for w in words] == text.split()
        gaps += [abs(w.end - end) for w, (_, end) in zip(words, times, strict=True)]
    assert sorted(gaps)[len(gaps) // 2] < 0.08


def test_times_do_not_depend_on_what_was_aligned_before(spoken):
    texts = [*GRID, *FREE]

    def times(aligner, text):
        return [(w.start, w.end) for w in aligner.align(spoken[text][0], text.split())]

    alone = [times(PocketsphinxAligner(), t) for t in texts[:3]]
    aligner = PocketsphinxAligner()
    backwards = [times(aligner, t) for t in reversed(texts)][::-1]
    assert backwards[:3] == alone and [times(aligner, t) for t in texts] == backwards
