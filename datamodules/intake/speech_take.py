"""One sound recording becomes clips of sound and text."""

from __future__ import annotations

from collections.abc import Iterator

from datamodules.intake.config import IntakeConfig
from datamodules.intake.containers import probe
from datamodules.intake.cutting import CutRules
from datamodules.intake.hearing import hear
from datamodules.intake.models import Models
from datamodules.intake.rejection import Rejected, Rejection
from datamodules.intake.sample import Sample, checked_sound, make_sample
from datamodules.intake.sources import Source


def take_speech(source: Source, cfg: IntakeConfig, models: Models) -> Iterator[Sample | Rejection]:
    """All clips of a recording, one after another, and what of it is not used.

    Raises:
        Rejected: where nothing of it can be used.
    """
    heard = hear(source, probe(source.path, source.member), cfg, models)
    made = 0
    yield from heard.lost
    for start, end in heard.clips((0.0, heard.seconds), CutRules(cfg.max_s, cfg.edge_s, cfg.pause_s)):
        first, stop = (round(t * heard.rate) for t in (start, end))
        try:
            wave, measured = checked_sound(heard.wave[first:stop], cfg)
            words = heard.words_of((start, end))
        except Rejected as no:
            yield Rejection(source.name, start, end, no.reason, no.detail)
            continue
        more = {"source": {"file": source.file_name, "start": round(start, 3), "end": round(end, 3)},
                "measured": measured}
        yield make_sample(source, made, heard, words, wave, cfg, None, more)
        made += 1
