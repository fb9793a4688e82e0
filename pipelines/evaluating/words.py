"""Rows of the report on words: what recognisers hear in each rendering, beside the floor and what needs no model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.progress import Progress

from pipelines.evaluating.cheats import source
from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Subject
from pipelines.evaluating.voices import wave_of
from streamchar.clock import ChunkClock
from streamchar.evaluation.recogniser import GRID_SLOTS, PocketsphinxBigram, Recogniser, grid_sentences, recogniser_for
from streamchar.evaluation.repetition import repetition_score
from streamchar.evaluation.report import Report
from streamchar.evaluation.words import WordScore, score_words, shuffled_score
from streamchar.transcript import normalise_words

Heard = dict[str, list[tuple[Subject, str]]]
"""Per column what was heard of every subject that has it."""


def word_rows(report: Report, subjects: list[Subject], known: list[str], devices: Devices, clock: ChunkClock, main: str,
              seed: int, bar: Progress) -> None:
    """Word errors of every column; no model: what column ``main`` says, scored against other clips' transcripts.

    ``known``: the training texts, which teach the bigram its language.
    """
    language = [*known, *(s.text for s in subjects)]
    recogniser = recogniser_for(language)
    heard = hear_all(recogniser, subjects, clock, bar, "hearing words")
    for column, found in heard.items():
        for subject, words in found:
            report.note(subject.key, column,
                        {"word errors %": 100 * score_words([subject.text], [words]).wer} if subject.text else {},
                        words)
    scores = {c: score_of(found, seed) for c, found in heard.items()}
    texts, said = [s.text for s, _ in heard[main]], [w for _, w in heard[main]]
    beside = {"baseline": 100 * shuffled_score(texts, said, seed=seed).wer} if len(set(texts)) > 1 else {}
    _errors(report, "word errors", scores, beside, "heard by pocketsphinx with "
            + ("the GRID grammar" if grid(language) else "a bigram of the texts"), "shuffled transcripts")
    report.add("words", "character errors", {c: 100 * s.cer for c, s in scores.items()}, unit="%")
    _parts(report, heard, main, seed)
    _noise(report, recogniser, subjects, clock, main, seed)
    free = heard if not grid(language) else hear_all(PocketsphinxBigram(language), subjects, clock, bar,
                                                     "hearing words, bigram")
    if free is not heard:
        _errors(report, "word errors, bigram", {c: score_of(f, seed) for c, f in free.items()}, {},
                "free to repeat and to insert")
    repeats = {c: repetition_score([s.text for s, _ in f], [w for _, w in f]) for c, f in free.items()}
    report.add("words", "repeated words", {c: 100 * r.repeated for c, r in repeats.items()}, unit="%",
               note="heard by the bigram, per word of the text")
    report.add("words", "inserted words", {c: 100 * r.inserted for c, r in repeats.items()}, unit="%")
    if devices.recogniser is not None:
        network = hear_all(devices.recogniser, subjects, clock, bar, "hearing words, network")
        _errors(report, "word errors, network", {c: score_of(f, seed) for c, f in network.items()}, {},
                "heard by the model in asr/")
    if grid(language):
        _slots(report, heard)


def hear_all(recogniser: Recogniser, subjects: list[Subject], clock: ChunkClock, bar: Progress, what: str) -> Heard:
    """Recognise every sound once (columns may share it); clips without text are left out."""
    spoken = [s for s in subjects if s.text]
    task = bar.add_task(what, total=sum(len(s.renderings) for s in spoken))
    heard: Heard = {}
    told: dict[int, str] = {}
    for subject in spoken:
        for column, r in subject.renderings.items():
            if id(r.sound) not in told:
                told[id(r.sound)] = hear(recogniser, r.sound, clock)
            heard.setdefault(column, []).append((subject, told[id(r.sound)]))
            bar.advance(task)
    return heard


def hear(recogniser: Recogniser, sound: np.ndarray, clock: ChunkClock) -> str:
    """The words in a sound at the clock's rate."""
    return " ".join(word.text for word in recogniser.hear(wave_of(sound, clock))) if len(sound) else ""


def score_of(found: list[tuple[Subject, str]], seed: int) -> WordScore:
    """Pooled over subjects."""
    return score_words([s.text for s, _ in found], [w for _, w in found], seed=seed)


def grid(texts: list[str]) -> bool:
    """Whether all texts are of the GRID grammar."""
    return all(grid_sentences(normalise_words(t)) for t in texts if t)


def _errors(report: Report, name: str, scores: Mapping[str, WordScore], beside: Mapping[str, float], note: str,
            baseline: str = "") -> None:
    report.add("words", name, {c: 100 * s.wer for c, s in scores.items()} | dict(beside),
               {c: (100 * s.low, 100 * s.high) for c, s in scores.items()}, unit="%", note=note, baseline=baseline)


def _parts(report: Report, heard: Heard, main: str, seed: int) -> None:
    """Held-out and new sentences apart, and the seeds apart, where there are several."""
    if len({s.new for s, _ in heard[main]}) > 1:
        for new, name in ((False, "of held-out sentences"), (True, "of new sentences")):
            some = {c: [(s, w) for s, w in f if s.new == new] for c, f in heard.items()}
            _errors(report, f"word errors {name}", {c: score_of(f, seed) for c, f in some.items() if f}, {}, "")
    seeds = sorted({s.seed for s, _ in heard[main]})
    if len(seeds) > 1:
        each = [100 * score_of([(s, w) for s, w in heard[main] if s.seed == n], seed).wer for n in seeds]
        report.add("words", "word errors, spread of seeds", {main: max(each) - min(each)}, unit="%",
                   note=f"largest less smallest of {', '.join(f'{e:.1f}' for e in each)} %")


def _noise(report: Report, recogniser: Recogniser, subjects: list[Subject], clock: ChunkClock, main: str,
           seed: int) -> None:
    """What a recogniser hears in noise as loud as the speech: the recorded one's, or column ``main``'s."""
    rng, found = np.random.default_rng(seed), []
    for subject in subjects:
        speech = source(subject) or subject.renderings.get(main)
        if speech is None or not subject.text or not len(speech.sound):
            continue
        loud = float(np.sqrt(np.mean(speech.sound**2)))
        found.append((subject, hear(recogniser, rng.standard_normal(len(speech.sound)) * loud, clock)))
    if found:
        report.add("words", "word errors of noise", {"baseline": 100 * score_of(found, seed).wer}, unit="%",
                   baseline="white noise as loud as the speech")


def _slots(report: Report, heard: Heard) -> None:
    """Share of right words per slot of the grammar, for sentences that are heard whole."""
    slots = list(GRID_SLOTS)
    for k, name in enumerate(slots):
        right: dict[str, list[float]] = {}
        for column, found in heard.items():
            for subject, words in found:
                said, got = normalise_words(subject.text), words.split()
                right.setdefault(column, []).extend(
                    100 * float(i < len(got) and got[i] == said[i]) for i in range(k, len(said), len(slots)))
        report.measure("words by slot", name, right, unit="%", better="high")
