"""What ``stage=prepare`` makes."""

from __future__ import annotations

from dataclasses import dataclass

RECIPES = ("puppet", "videos", "grid", "speech")


@dataclass
class PrepareConfig:
    """Which data set is made; of the puppet: how many clips, who speaks, what is said, how it is drawn."""

    recipe: str = "puppet"
    """``puppet``: the drawn one (all other options here). Or recordings in ``input=DIR`` (options: ``intake``): any
    ``videos``; ``grid``, the corpus as published; ``speech``, sound with text alone."""
    clips: int = 160
    """Training clips."""
    speech_clips: int = 0
    """Further training clips of sound alone, for the orchestrator: four each by voices that no puppet has."""
    val_clips: int = 16
    """Held-out clips: other sentences, by other puppets (see ``val_identities``)."""
    size: int = 96
    """Picture side in pixels (a multiple of 8)."""
    fps: float = 25.0
    """Frames per second (24 or 25)."""
    sample_rate: int = 16000
    """Sound samples per second."""
    identities: int = 16
    """Number of training puppets (look and voice)."""
    val_identities: int = 4
    """Number of held-out puppets; 0: the training puppets themselves, who say other sentences."""
    sentences: int = 0
    """0: an open set; n: only n fixed sentences, and clips walk through looks x sentences, so that looks share them."""
    grammar: str = "mixed"
    """What is said: ``grid`` (six-word commands), ``free`` (simple English) or ``mixed``."""
    grid_share: float = 0.6
    """Share of GRID sentences in the mixed grammar, 0 to 1."""
    min_s: float = 6.0
    """Shortest clip in seconds."""
    max_s: float = 12.0
    """Longest clip in seconds."""
    max_sentences: int = 0
    """Most sentences of one clip; 0: as many as fit, 1: short single-sentence clips."""
    pause_s: float = 1.5
    """Longest pause between two sentences in seconds."""
    edge_s: float = 1.0
    """Longest silence before the first and after the last sentence in seconds."""
    dither_db: float = -52.0
    """Level of the faint white noise under the sound, dB of full scale (recognisers stumble over digital silence)."""
    crf: int = 12
    """Quality of the H.264 pictures (lower is better)."""
    shard_clips: int = 20
    """Clips per shard."""
    workers: int = 2
    """Processes that draw; 0: in this process. The result does not depend on it."""
    seed: int = 0
    """Seed of looks, voices, sentences and motion."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words (the puppet's own are checked by its recipe)."""
        if self.recipe in RECIPES:
            return []
        return [f"prepare.recipe={self.recipe!r} must be one of {', '.join(RECIPES)}"]
