"""The plan of a puppet data set: which puppet says which sentences in which clip, a pure function of the options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.sentences import draw_sentence
from streamchar.errors import InputError

SPLITS = {"train": 0, "val": 1}
SEEDS_PER_SET, HELD_OUT = 1_000_000, 500_000
CLIPS_PER_VOICE = 4
"""Of speech without pictures: a voice's clips follow each other, so that they find their partners in their shard."""
UNHASHED = ("recipe", "workers", "clips", "val_clips", "speech_clips", "shard_clips")
"""Options that do not decide what is in a clip."""


@dataclass(frozen=True)
class ClipPlan:
    """One clip to make: who (identity seed), what (an endless supply of sentences) and the seed of everything else.

    ``pictures``: False makes sound alone.
    """

    key: str
    split: str
    number: int
    identity: int
    pool: tuple[str, ...]
    """Fixed sentences to walk through from the first; empty: drawn from the grammar."""
    pictures: bool = True

    def sentences(self, cfg: PrepareConfig) -> Iterator[str]:
        """Sentences in the order in which the clip says them, without end."""
        if self.pool:
            while True:
                yield from self.pool
        rng = self.random(cfg, "sentences")
        while True:
            yield draw_sentence(rng, cfg.grammar, self.split, cfg.grid_share)

    def random(self, cfg: PrepareConfig, role: str) -> np.random.Generator:
        """The clip's own source of randomness for one role, independent of all others."""
        digest = hashlib.sha256(role.encode()).digest()
        return np.random.default_rng([cfg.seed, SPLITS[self.split], self.number, int.from_bytes(digest[:4], "little")])


@dataclass(frozen=True)
class ShardPlan:
    """One shard to make: its file name, its clips and the fingerprint of all that decides its bytes."""

    file: str
    clips: tuple[ClipPlan, ...]
    recipe: str


def identity_seed(cfg: PrepareConfig, split: str, number: int) -> int:
    """Seed of the split's ``number``-th puppet; the splits' seeds never meet."""
    return cfg.seed * SEEDS_PER_SET + (HELD_OUT if split == "val" else 0) + number


def held_out_seed(cfg: PrepareConfig, number: int) -> int:
    """Seed of the ``number``-th puppet of the validation split: a known one where ``val_identities`` is 0."""
    return identity_seed(cfg, "val" if cfg.val_identities else "train", number)


def plan_shards(cfg: PrepareConfig) -> list[ShardPlan]:
    """All shards of the data set: train first, then speech alone, then validation.

    Raises:
        InputError: on options that cannot be met, all of them in one message.
    """
    check(cfg)
    shards: list[ShardPlan] = []
    base = {k: v for k, v in asdict(cfg).items() if k not in UNHASHED}
    code = source_fingerprint()
    for name, clips in (("train", _plan_clips(cfg, "train", cfg.clips)), ("train-speech", _plan_speech(cfg)),
                        ("val", _plan_clips(cfg, "val", cfg.val_clips))):
        for n, start in enumerate(range(0, len(clips), cfg.shard_clips)):
            part = tuple(clips[start: start + cfg.shard_clips])
            body = json.dumps([base, code, [asdict(c) for c in part]], sort_keys=True)
            shards.append(ShardPlan(f"puppet-{name}-{n:05d}.tar", part, hashlib.sha256(body.encode()).hexdigest()))
    return shards


def _plan_speech(cfg: PrepareConfig) -> list[ClipPlan]:
    """Clips of sound alone, by the puppets whose seeds follow those of the training puppets."""
    pool = _fixed_sentences(cfg, "train")
    return [ClipPlan(f"puppet-speech-{i:06d}", "train", cfg.clips + i,
                     identity_seed(cfg, "train", cfg.identities + i // CLIPS_PER_VOICE), pool, pictures=False)
            for i in range(cfg.speech_clips)]


def _plan_clips(cfg: PrepareConfig, split: str, count: int) -> list[ClipPlan]:
    """Clip i shows look ``i mod looks``; with fixed sentences round r of look l begins with sentence l + r."""
    known = split == "train" or not cfg.val_identities
    looks = cfg.identities if known else cfg.val_identities
    pool = _fixed_sentences(cfg, split)
    clips = []
    for i in range(count):
        look, turn = i % looks, i // looks
        first = (look + turn) % len(pool) if pool else 0
        seed = identity_seed(cfg, split, look) if split == "train" else held_out_seed(cfg, look)
        clips.append(ClipPlan(f"puppet-{split}-{i:06d}", split, i, seed, pool[first:] + pool[:first]))
    return clips


def _fixed_sentences(cfg: PrepareConfig, split: str) -> tuple[str, ...]:
    rng = np.random.default_rng([cfg.seed, SPLITS[split], 77])
    pool: dict[str, None] = {}
    while len(pool) < cfg.sentences:
        pool[draw_sentence(rng, cfg.grammar, split, cfg.grid_share)] = None
    return tuple(pool)


def source_fingerprint() -> str:
    """sha256 over this package's source and the encoders: shards made by other code are made again."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in [*sorted(package.glob("*.py")), package.parent / "media.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check(cfg: PrepareConfig) -> None:
    """Refuse options that contradict themselves.

    Raises:
        InputError: naming every wrong option.
    """
    wrong = []
    if cfg.size < 32 or cfg.size % 8:
        wrong.append(f"prepare.size={cfg.size}: expected a multiple of 8 from 32 on")
    if cfg.fps not in (24, 25):
        wrong.append(f"prepare.fps={cfg.fps:g}: expected 24 or 25")
    if not 8000 <= cfg.sample_rate <= 48000:
        wrong.append(f"prepare.sample_rate={cfg.sample_rate}: expected 8000 to 48000")
    if not 0 < cfg.min_s <= cfg.max_s:
        wrong.append(f"prepare.min_s={cfg.min_s:g}, max_s={cfg.max_s:g}: expected 0 < min_s <= max_s")
    if cfg.grammar not in ("grid", "free", "mixed"):
        wrong.append(f"prepare.grammar={cfg.grammar!r}: expected grid, free or mixed")
    for name in ("identities", "shard_clips"):
        if getattr(cfg, name) < 1:
            wrong.append(f"prepare.{name}={getattr(cfg, name)}: expected at least 1")
    for name in ("clips", "val_clips", "speech_clips", "val_identities", "workers", "sentences", "seed"):
        if getattr(cfg, name) < 0:
            wrong.append(f"prepare.{name}={getattr(cfg, name)}: expected 0 or more")
    if wrong:
        raise InputError("; ".join(wrong))
