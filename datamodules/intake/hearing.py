"""What is said in a recording, and when: its sound, the spans of speech, the words with their times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datamodules.conform import fit_wave
from datamodules.intake.alignment import time_words
from datamodules.intake.config import IntakeConfig
from datamodules.intake.containers import Recording, read_sound
from datamodules.intake.cutting import CutRules, plan_clips, words_within
from datamodules.intake.models import Models
from datamodules.intake.rejection import Rejected, Rejection
from datamodules.intake.silero import SAMPLE_RATE
from datamodules.intake.sources import Source
from datamodules.intake.transcripts import Cue, Token, read_transcript
from datamodules.intake.voice_activity import Span, speech_spans
from streamchar.evaluation.recogniser import Recogniser
from streamchar.segmentation import join_written

MISHEARD_S, UNWRITTEN_S = 0.5, 0.8
"""Speech further than the first from any word, and longer than the second, has no text."""
QUIET = 1e-4
"""A sound whose peak is lower is digital silence."""


@dataclass
class Heard:
    """``wave`` (S,) at ``rate``; ``speech`` spans and ``words`` in seconds; ``written``: where the text comes from;
    ``lost``: spans that no clip may touch, since text or speech there has no counterpart."""

    wave: Tensor
    rate: int
    speech: list[Span]
    words: list[Token]
    written: str
    lost: list[Rejection]

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.wave) / self.rate

    def clips(self, bounds: Span, rules: CutRules) -> list[Span]:
        """Where clips are cut inside ``bounds``: see :func:`datamodules.intake.cutting.plan_clips`."""
        open_spans = [bounds]
        for row in self.lost:
            open_spans = without(open_spans, (row.start, row.end if row.end is not None else self.seconds))
        return [clip for span in open_spans for clip in plan_clips(span, self.speech, self.words, rules)]

    def words_of(self, clip: Span) -> list[Token]:
        """The words of a clip, with times from its start.

        Raises:
            Rejected: ``no transcript``, where somebody speaks but no word is known.
        """
        words = words_within(self.words, clip)
        if not words:
            raise Rejected("no transcript", "no word of the text lies in the clip")
        return words


def hear(source: Source, recording: Recording, cfg: IntakeConfig, models: Models) -> Heard:
    """Listen to a recording.

    Raises:
        Rejected: no transcript and no recogniser, a bad one, no sound, no speech, or no piece of the text fits.
    """
    if source.text is None and source.transcript is None and models.paths.asr is None:
        raise Rejected("no transcript")
    cues = [Cue(source.text)] if source.text is not None else []
    if source.transcript is not None and not cues:
        cues = read_transcript(source.transcript, source.text_member)
    wave = torch.from_numpy(read_sound(recording, cfg.sample_rate))
    lowest, highest = (float(v) for v in wave.aminmax())  # of an hour, without a copy
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise Rejected("no sound", "the sound holds NaN or infinite samples")
    if max(-lowest, highest) < QUIET:
        raise Rejected("no sound", "the sound track is silent")
    listened = fit_wave(wave, cfg.sample_rate, SAMPLE_RATE)
    speech = speech_spans(models.vad, listened)
    if not speech:
        raise Rejected("no speech")
    written = "recogniser"
    if cues:
        told = source.text_member.name if source.text_member else source.transcript
        written = Path(told).suffix.lstrip(".") if told else "corpus"
    else:
        assert models.recogniser is not None
        cues = recognised(speech, listened, models.recogniser, cfg)
    words: list[Token] = []
    lost: list[Rejection] = []
    for cue in cues:
        try:
            words += list(cue.tokens) if cue.tokens is not None else time_words(cue, listened, models.aligner)
        except Rejected as no:
            end = min(cue.end, len(wave) / cfg.sample_rate)
            lost.append(Rejection(source.name, cue.start, end, no.reason, no.detail))
    words.sort(key=lambda w: w.start)
    if words:
        lost += [Rejection(source.name, *span, "no transcript", "speech without text")
                 for span in unwritten(speech, words)]
    return Heard(wave, cfg.sample_rate, speech, words, written, lost)


def unwritten(speech: list[Span], words: list[Token]) -> list[Span]:
    """Longer pieces of speech in which the text has no word."""
    rest = speech
    for word in words:
        rest = without(rest, (word.start - MISHEARD_S, word.end + MISHEARD_S))
    return [s for s in rest if s[1] - s[0] > UNWRITTEN_S]


def recognised(speech: list[Span], wave: Tensor, recogniser: Recogniser, cfg: IntakeConfig) -> list[Cue]:
    """What a recogniser writes, one cue for each piece of speech between long pauses.

    Raises:
        Rejected: ``no speech``, where it hears no word.
    """
    rules = CutRules(cfg.max_s, cfg.edge_s, cfg.pause_s)
    cues = []
    for start, end in plan_clips((0.0, len(wave) / SAMPLE_RATE), speech, [], rules):
        heard = recogniser.hear(wave[round(start * SAMPLE_RATE):round(end * SAMPLE_RATE)])
        text = join_written(w.text for w in heard)
        if not text:
            continue
        timed = all(math.isfinite(w.start) and math.isfinite(w.end) for w in heard)
        tokens = tuple(Token(w.text, start + w.start, start + w.end) for w in heard) if timed else None
        cues.append(Cue(text, start, end, tokens))
    if not cues:
        raise Rejected("no speech", "the recogniser hears no word")
    return cues


def without(spans: list[Span], taken: Span) -> list[Span]:
    """Spans with a piece of time taken out."""
    out = []
    for start, end in spans:
        out += [(start, min(end, taken[0]))] if start < taken[0] else []
        out += [(max(start, taken[1]), end)] if end > taken[1] else []
    return out
