"""Rows of the report on words: what recognisers hear in each rendering, beside the floor and what needs no model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from rich.progress import Progress

from pipelines.evaluating.cheats import source
from pipelines.evaluating.devices import Devices
from pipelines.evaluating.material import Subject
from pipelines.evaluating.shares import Parts, add_shares, points_above
from pipelines.evaluating.voices import wave_of
from streamchar.clock import ChunkClock
from streamchar.evaluation.recogniser import GRID_SLOTS, PocketsphinxBigram, Recogniser, grid_sentences, recogniser_for
from streamchar.evaluation.repetition import repetition_score
from streamchar.evaluation.report import Report
from streamchar.evaluation.word_alignment import align_words
from streamchar.evaluation.words import WordScore, score_words, shuffled_score
from streamchar.transcript import normalise_words

Heard = dict[str, list[tuple[Subject, str]]]
"""Per column what was heard of every subject that has it."""


def word_rows(report: Report, subjects: list[Subject], known: list[str], devices: Devices, clock: ChunkClock, main: str,
              seed: int, bar: Progress) -> None:
    """Word errors of every column; no model: what column ``main`` says, scored against other clips' transcripts.

    All rows are of the clips' own sentences, beside which the recordings stand; new sentences have one row, which
    stands beside it. ``known``: the training texts, which teach the bigram its language.
    """
    texts, recorded = [s.text for s in subjects], [s for s in subjects if not s.new]
    by_grammar, free = grid([*known, *texts]), bigram_of(known, texts)
    recogniser = recogniser_for([*known, *texts]) if by_grammar else free
    closed = "" if known else "; it was taught these very texts"
    heard = hear_all(recogniser, subjects, clock, bar, "hearing words")
    for column, pairs in heard.items():
        for subject, words in pairs:
            report.note(subject.key, column, {"word errors %": 100 * score_words([subject.text], [words]).wer}, words)
    own = {c: [(s, w) for s, w in f if not s.new] for c, f in heard.items()}
    said = own[main] or heard[main]
    beside = {"baseline": 100 * shuffled_score([s.text for s, _ in said], [w for _, w in said], seed=seed).wer
              } if len({s.text for s, _ in said}) > 1 else {}
    _errors(report, "word errors", own, seed, "heard by pocketsphinx with "
            + ("the GRID grammar" if by_grammar else f"a bigram{closed}"), beside, "shuffled transcripts")
    points_above(report, {c: _errors_of(f) for c, f in own.items()})
    _new_and_seeds(report, heard, main, seed)
    letters = {c: score_of(f, seed) for c, f in own.items() if f}
    report.add("words", "character errors", {c: 100 * s.cer for c, s in letters.items()},
               {c: (100 * s.cer_low, 100 * s.cer_high) for c, s in letters.items()}, unit="%")
    _noise(report, recogniser, recorded, clock, main, seed)
    loose = hear_all(free, recorded, clock, bar, "hearing words, bigram") if by_grammar else own
    if by_grammar:
        _errors(report, "word errors, bigram", loose, seed, f"free to repeat and to insert{closed}")
    _repeats(report, loose)
    if devices.recogniser is not None:
        network = hear_all(devices.recogniser, recorded, clock, bar, "hearing words, network")
        _errors(report, "word errors, network", network, seed, "heard by the model in asr/")
    if by_grammar:
        _slots(report, own)


def bigram_of(known: list[str], texts: list[str]) -> PocketsphinxBigram:
    """A bigram of the training texts, which knows the words of ``texts`` but not their order; without training texts
    of ``texts`` themselves."""
    words = {w for t in texts for w in normalise_words(t)} - {w for t in known for w in normalise_words(t)}
    return PocketsphinxBigram([*known, " ".join(sorted(words))] if known else texts)


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
    """Pooled over subjects; a clip's streams with several seeds are drawn together."""
    return score_words([s.text for s, _ in found], [w for _, w in found], seed=seed, groups=[s.group for s, _ in found])


def grid(texts: list[str]) -> bool:
    """Whether all texts are of the GRID grammar."""
    return all(grid_sentences(normalise_words(t)) for t in texts if t)


def _errors(report: Report, name: str, heard: Heard, seed: int, note: str, beside: Mapping[str, float] | None = None,
            baseline: str = "") -> None:
    scores = {c: score_of(found, seed) for c, found in heard.items() if found}
    report.add("words", name, {c: 100 * s.wer for c, s in scores.items()} | dict(beside or {}),
               {c: (100 * s.low, 100 * s.high) for c, s in scores.items()}, unit="%", note=note, baseline=baseline)


def _errors_of(found: list[tuple[Subject, str]]) -> list[tuple[str, float, float]]:
    """Per stream its clip, wrong words, and words of the text."""
    scores = [(s.group, score_words([s.text], [w], resamples=1)) for s, w in found]
    return [(clip, score.wer * score.words, score.words) for clip, score in scores]


def _new_and_seeds(report: Report, heard: Heard, main: str, seed: int) -> None:
    """New sentences, and the seeds apart, where there are several."""
    new = {c: [(s, w) for s, w in f if s.new] for c, f in heard.items()}
    if any(new.values()):
        _errors(report, "word errors, new sentences", new, seed, "none of them among the training texts")
    seeds = sorted({s.seed for s, _ in heard[main]})
    if len(seeds) > 1:
        each = [100 * score_of([(s, w) for s, w in heard[main] if s.seed == n], seed).wer for n in seeds]
        report.add("words", "word errors, spread of seeds", {main: max(each) - min(each)}, unit="%",
                   note=f"largest less smallest of {', '.join(f'{e:.1f}' for e in each)} %")


def _repeats(report: Report, heard: Heard) -> None:
    """Repeated and inserted words per word of the text."""
    for name, pick in (("repeated words", lambda r: r.repeated), ("inserted words", lambda r: r.inserted)):
        counts: Parts = {}
        for column, found in heard.items():
            for subject, words in found:
                due = len(normalise_words(subject.text))
                surplus = due * pick(repetition_score([subject.text], [words]))
                counts.setdefault(column, []).append((subject.group, surplus, due))
        add_shares(report, "words", name, counts, note="heard by the bigram, per word of the text")


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
    """Share of right words per slot of the grammar: a word that is heard too much or not at all moves no later one."""
    slots = list(GRID_SLOTS)
    counts: dict[str, Parts] = {name: {} for name in slots}
    for column, found in heard.items():
        for subject, words in found:
            right = 1 - align_words(normalise_words(subject.text), words.split())[0]
            for k, name in enumerate(slots):
                mine = right[k::len(slots)]
                counts[name].setdefault(column, []).append((subject.group, float(mine.sum()), len(mine)))
    for name, parts in counts.items():
        add_shares(report, "words by slot", name, parts, better="high")
