"""New sentences out of spoken words: which sound is where, at which speed, and what may not be said."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from datamodules.clip import Clip
from datamodules.config import DataConfig, RespokenConfig
from datamodules.respoken import respoken
from datamodules.splice import FADE_S, Utterance, at_speed, in_a_row, spliced
from streamchar.transcript import Word

RATE = 16000
EDGES = (0.2, 0.6, 0.9, 1.4)
"""Borders of the three words of every recording; there it is quiet for 10 ms."""


def recording(words: str, hertz: float) -> Utterance:
    """A tone for all words, in 1.6 s."""
    t = np.arange(round(1.6 * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hertz * t)
    for edge in EDGES:
        wave[np.abs(t - edge) < 0.005] = 0
    spoken = [Word(w, a, b) for w, a, b in zip(words.split(), EDGES, EDGES[1:], strict=False)]
    return Utterance(wave.astype(np.float32), spoken)


def pitch(wave: np.ndarray) -> float:
    """Hz of the strongest tone."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 4 * RATE))
    return float(spectrum.argmax()) / 4


def heard(said: Utterance) -> list[float]:
    """The tone inside each word."""
    return [pitch(said.wave[round((w.start + 0.03) * RATE):round((w.end - 0.03) * RATE)]) for w in said.words]


def test_every_word_sounds_as_its_source_says_it_where_its_times_say():
    low, high = recording("lay red at", 300), recording("bin blue by", 700)
    said = spliced([low, high, low], RATE)
    assert [w.text for w in said.words] == ["lay", "blue", "at"]
    assert heard(said) == pytest.approx([300, 700, 300], abs=4)
    assert [w.start for w in said.words] == pytest.approx(EDGES[:3], abs=0.012)
    assert len(said.wave) == pytest.approx(1.6 * RATE, abs=0.012 * RATE)
    assert np.abs(np.diff(said.wave)).max() < 0.15  # no click: the tones themselves rise by .09 a sample


def test_what_is_not_exchanged_stays_bit_for_bit():
    low, high = recording("lay red at", 300), recording("bin blue by", 700)
    whole = spliced([low] * 3, RATE)
    assert np.array_equal(whole.wave, low.wave) and whole.words == low.words
    half = spliced([low, low, high], RATE)
    first, last = round(0.85 * RATE), round(0.65 * RATE)
    assert np.array_equal(half.wave[:first], low.wave[:first])
    assert np.array_equal(half.wave[-last:], high.wave[-last:])


@pytest.mark.parametrize(("length", "words"), [
    (1.6, []), (0.006, [("a", 0.0, 0.05)]), (1.0, [("a", 0.2, 0.8), ("b", 0.8, 1.4)]), (1.6, [("a", 0.2, 0.22)]),
    (1.6, [("a", 0.0, 1.5), ("b", 0.5, 0.9)]), (1.6, [("a", -0.1, 0.5)])],
    ids=["no words", "hardly any sound", "words behind its end", "too short", "overlapping", "before its beginning"])
def test_words_without_a_place_of_their_own_are_not_used(length, words):
    said = Utterance(np.zeros(round(length * RATE), np.float32), [Word(*w) for w in words])
    assert not said.can_be_cut(RATE)


def test_the_shortest_words_keep_a_part_of_their_own():
    def tight(hertz: float) -> Utterance:
        words = [Word(w, 0.2 + 0.036 * i, 0.236 + 0.036 * i) for i, w in enumerate("abcd")]
        return Utterance(recording("a b c", hertz).wave, words)

    low, high = tight(300), tight(700)
    assert low.can_be_cut(RATE)
    said = spliced([low, high, low, high], RATE)
    assert all(w.end - w.start > FADE_S for w in said.words)
    assert all(a.end <= b.start + 1e-6 for a, b in pairwise(said.words))


def test_speed_changes_pitch_and_pace_together():
    fast = at_speed(recording("lay red at", 400), 1.1)
    assert heard(fast) == pytest.approx([440] * 3, abs=4)
    assert [w.end for w in fast.words] == pytest.approx([t / 1.1 for t in EDGES[1:]])
    assert len(fast.wave) == pytest.approx(1.6 * RATE / 1.1, abs=2)


@pytest.mark.parametrize("pause", [0.0, 0.1, 9.0])
def test_one_sentence_follows_another_after_at_most_the_pause(pause):
    said = in_a_row([recording("lay red at", 300), recording("bin blue by", 700), recording("set white in", 500)],
                    [pause] * 2, RATE)
    assert heard(said) == pytest.approx([300] * 3 + [700] * 3 + [500] * 3, abs=4)
    most = 0.2 + 0.2 - FADE_S  # all the quiet that the recordings have, before the first word and behind the last
    for before, after in ((2, 3), (5, 6)):
        between = said.words[after].start - said.words[before].end
        assert between == pytest.approx(min(pause, most), abs=1e-3)
    assert np.abs(np.diff(said.wave)).max() < 0.2  # no click: the highest tone rises by .08 a sample


def test_words_that_end_with_their_sound_do_not_reach_into_the_next_sentence():
    whole = recording("lay red at", 300)
    tight = Utterance(whole.wave[round(0.2 * RATE):round(1.4 * RATE)],
                      [Word(w.text, w.start - 0.2, w.end - 0.2) for w in whole.words])
    said = in_a_row([tight, tight], [0.3], RATE)
    assert all(a.end <= b.start + 1e-6 for a, b in pairwise(said.words))
    assert said.words[-1].end <= len(said.wave) / RATE + 1e-6


def clips() -> list[Clip]:
    texts = {"a": "lay red at", "b": "bin blue by", "c": "set white in", "d": "place green"}
    out = []
    for number, (key, text) in enumerate(texts.items()):
        said = recording(text, 300 + 100 * number)
        out.append(Clip(key, None, torch.from_numpy(said.wave), RATE, 0.0, said.words, {"speaker": "s1", "text": text},
                        "x.tar"))
    return out + [Clip("quiet", None, torch.zeros(RATE), RATE, 0.0, [], {"speaker": "s1"}, "x.tar")]


EXCHANGED = RespokenConfig(times=100, switch_p=1.0, speeds=[0.9, 1.0])


def test_sentences_stay_in_the_grammar_and_voices_are_named_after_their_speed():
    made = list(respoken(clips(), EXCHANGED, {"lay blue in"}, "x.tar"))
    texts = [c.text for c in made if c.key[0] in "abc"]
    assert all(c.text.split()[0] == {"a": "lay", "b": "bin", "c": "set", "d": "place"}[c.key[0]] for c in made)
    slots = [set(words) for words in zip(*(t.split() for t in texts), strict=True)]
    assert slots == [{"lay", "bin", "set"}, {"red", "blue", "white"}, {"at", "by", "in"}]
    assert len(set(texts)) == 26  # all 27 but the one to be avoided
    assert {c.text for c in made if c.key[0] == "d"} == {"place green"}  # nobody else says two words
    assert {c.speaker for c in made} == {"s1 x 1", "s1 x 0.9"} and {c.look for c in made} == {"unseen"}
    assert len({c.key for c in made}) == len(made) == 400
    again = list(respoken(clips(), EXCHANGED, {"lay blue in"}, "x.tar"))
    assert all(torch.equal(a.wave, b.wave) and a.words == b.words for a, b in zip(made, again, strict=True))


def test_several_sentences_are_one_clip():
    made = list(respoken(clips(), replace(EXCHANGED, sentences=3), {"lay blue in"}, "x.tar"))
    texts = [c.text.split() for c in made if c.key[0] != "d"]  # nobody else says two words
    assert {len(words) for words in texts} == {3, 6, 9}
    assert [words[0] for words in texts[::100]] == ["lay", "bin", "set"]
    assert {words[-3] for words in texts if len(words) == 9} == {"lay", "bin", "set"}
    assert not any(" ".join(words[i:i + 3]) == "lay blue in" for words in texts for i in range(0, len(words), 3))


def test_nobody_says_the_words_of_one_who_is_not_named():
    nameless = clips()
    for clip in nameless:
        del clip.meta["speaker"]
    made = list(respoken(nameless, EXCHANGED, (), "x.tar"))
    assert {c.text for c in made} == {"lay red at", "bin blue by", "set white in", "place green"}


def test_a_set_whose_every_sentence_is_held_out_gives_none():
    assert not list(respoken(clips()[:1], RespokenConfig(times=2), {"lay red at"}, "x.tar"))


def test_wrong_options_are_named():
    wrong = {"times": -1, "share": 1, "joint_share": 1, "switch_p": 2, "speeds": [0.1], "sentences": 0, "pause_s": -1}
    found = RespokenConfig(**wrong).problems()
    assert [problem.split("=")[0] for problem in found] == [f"data.respoken.{name}" for name in wrong]


def test_a_teacher_cannot_hear_what_is_not_said_again_or_counts_to_its_words_set():
    assert not RespokenConfig(times=1, joint_share=0.3).problems()
    problem, = RespokenConfig(joint_share=0.3).problems()
    assert problem.startswith("data.respoken.joint_share=0.3 is a share of what data.respoken.times=0 does not make")
    mix = {"talk": {"shards": "x"}}
    assert not DataConfig(mix=mix, respoken=RespokenConfig(times=1)).problems()
    problem, = DataConfig(mix=mix, respoken=RespokenConfig(times=1, joint_share=0.3)).problems()
    assert problem.startswith("data.respoken.joint_share=0.3 cannot stand beside data.mix")
