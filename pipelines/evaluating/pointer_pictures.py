"""Heat maps of the pointer for the page: over real held-out sound, and over what the model itself said."""

from __future__ import annotations

from pipelines.evaluating.material import Subject
from pipelines.evaluating.pointers import aligned_words
from pipelines.evaluating.streams import real_chunks
from pipelines.run_directory import RunDirectory
from streamchar.evaluation.pointer_map import PointerMap, pointer_maps
from streamchar.evaluation.pointer_picture import draw_pointer_maps
from streamchar.evaluation.recogniser import PocketsphinxAligner
from streamchar.evaluation.report import Report
from streamchar.rollout.character import Character
from streamchar.transcript import Word
from streamchar.types import Latents

SHOWN, MOST_CHUNKS = 4, 12


def pointer_pictures(report: Report, directory: RunDirectory, character: Character, subjects: list[Subject],
                     column: str, align: bool) -> None:
    """Draw both of up to four clips; ``align``: what the model really said is found by forced alignment, else it is
    not known."""
    aligner = PocketsphinxAligner() if align else None
    real, own = [], []
    for subject in [s for s in subjects if s.truth is not None][:SHOWN]:
        chunks, take = subject.latents.get(column, []), subject.renderings.get(column)
        assert subject.truth is not None
        real += _maps(character, subject, real_chunks(subject, character.clock), subject.truth.words)
        own += _maps(character, subject, chunks,
                     aligned_words(aligner, subject, take, character.clock) if aligner and take else None)
    folder = directory.stage("evaluate")
    for name, maps, title in (("pointer_real.png", real, "The pointer over real sound"),
                              (f"pointer_{column}.png", own, "The pointer over the model's own sound")):
        if any(m.columns for m in maps):
            draw_pointer_maps(maps, folder / name)
            report.pictures[title] = name


def _maps(character: Character, subject: Subject, chunks: list[Latents], words: list[Word] | None) -> list[PointerMap]:
    assert subject.prompt is not None
    batch = subject.prompt.to(next(character.orchestrator.parameters()).device)
    return pointer_maps(character.orchestrator, character.start(batch), chunks[:MOST_CHUNKS], [subject.key], words)
