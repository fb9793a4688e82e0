"""One take: sentences, pauses and silences on a time line, the sound of it and the puppet's performance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.identity import Identity, make_identity
from datamodules.puppet.performance import Performance, perform
from datamodules.puppet.puppet import mouth_box, render
from datamodules.puppet.recipe import ClipPlan
from datamodules.puppet.speech import Span, Speech, speak
from streamchar.errors import InputError

SHORTEST_EDGE_S = 0.08
SHORTEST_PAUSE_S = 0.15


@dataclass
class Take:
    """A clip before encoding.

    Attributes:
        plan: what was asked for.
        who: the puppet.
        sentences: what it says, one string each.
        wave: (S,) float32.
        words, phones: with their times in seconds.
        length: F, the clip's frames, drawn or not.
        play: the performance, F frames long; None where nothing is drawn.
        frames: (F, size, size, 3) uint8, or None.
    """

    plan: ClipPlan
    who: Identity
    sentences: list[str]
    wave: np.ndarray
    words: list[Span]
    phones: list[Span]
    length: int
    play: Performance | None
    frames: np.ndarray | None


def make_take(plan: ClipPlan, cfg: PrepareConfig) -> Take:
    """Speak, move and draw one clip, or only speak it.

    Raises:
        InputError: if espeak-ng is missing, or no sentence fits into ``max_s``.
    """
    who = make_identity(plan.identity)
    sentences, placed, seconds = _time_line(plan, cfg, who)
    frames = round(seconds * cfg.fps)
    wave = np.zeros(round(frames * cfg.sample_rate / cfg.fps), np.float32)
    words: list[Span] = []
    phones: list[Span] = []
    for speech, start in placed:
        # A whole sample, so that words and sound share one zero.
        first = round(start * cfg.sample_rate)
        wave[first: first + len(speech.wave)] += speech.wave[: len(wave) - first]
        words += [w.shifted(first / cfg.sample_rate) for w in speech.words]
        phones += [p.shifted(first / cfg.sample_rate) for p in speech.phones]
    noise = plan.random(cfg, "dither").standard_normal(len(wave)).astype(np.float32)
    wave = np.clip(wave + noise * np.float32(10 ** (cfg.dither_db / 20)), -1, 1)
    play = perform(phones, frames, cfg.fps, plan.random(cfg, "motion")) if plan.pictures else None
    return Take(plan, who, sentences, wave, words, phones, frames, play,
                None if play is None else render(who, play, cfg.size))


def _time_line(plan: ClipPlan, cfg: PrepareConfig,
               who: Identity) -> tuple[list[str], list[tuple[Speech, float]], float]:
    """Which sentences, each with its start in seconds, and the clip's length between ``min_s`` and ``max_s``."""
    rng = plan.random(cfg, "time")
    wanted = rng.uniform(cfg.min_s, cfg.max_s)
    lead = rng.uniform(SHORTEST_EDGE_S, max(cfg.edge_s, SHORTEST_EDGE_S))
    said: list[str] = []
    placed: list[tuple[Speech, float]] = []
    now = 0.0
    for tried, sentence in enumerate(plan.sentences(cfg)):
        speech = speak(sentence.split(), who.voice, cfg.sample_rate)
        pause = rng.uniform(SHORTEST_PAUSE_S, max(cfg.pause_s, SHORTEST_PAUSE_S)) if placed else 0.0
        # A clip that would still be too short may go on up to max_s.
        room = wanted if now + 2 * cfg.edge_s >= cfg.min_s else cfg.max_s
        if now + pause + speech.seconds + 2 * SHORTEST_EDGE_S <= (room if placed else cfg.max_s):
            said.append(sentence)
            placed.append((speech, now + pause))
            now += pause + speech.seconds
            if cfg.max_sentences and len(placed) >= cfg.max_sentences:
                break
        elif placed:
            break
        elif tried >= 20:
            raise InputError(f"prepare.max_s={cfg.max_s:g}: no sentence fits, the last one lasts "
                             f"{speech.seconds:.1f} s; allow at least 4 s")
    lead = min(lead, cfg.max_s - now - SHORTEST_EDGE_S)
    tail = min(rng.uniform(SHORTEST_EDGE_S, max(cfg.edge_s, SHORTEST_EDGE_S)), cfg.max_s - now - lead)
    missing = max(cfg.min_s - now - lead - tail, 0.0)
    longer_tail = min(missing, max(cfg.edge_s - tail, 0.0))
    lead += min(missing - longer_tail, max(cfg.edge_s - lead, 0.0))
    return said, [(s, t + lead) for s, t in placed], max(now + lead + tail + longer_tail, cfg.min_s)


def describe(take: Take, cfg: PrepareConfig) -> dict:
    """The sample's JSON: the schema of the shards, with the truth that only a drawing has."""
    who = take.who
    about = {
        "key": take.plan.key, "speaker": who.name, "look": who.name, "text": " ".join(take.sentences),
        "sentences": take.sentences, "split": take.plan.split, "held_out": take.plan.split == "val",
        "fps": int(cfg.fps), "frames": take.length, "sample_rate": cfg.sample_rate,
        "source": "drawn puppet, espeak-ng voice",
        "voice": {"name": who.voice.name, "rate": who.voice.rate, "pitch": who.voice.pitch},
        "words": _with_silence(take.words, take.length / cfg.fps),
        "phones": [{"p": p.name, "start": round(p.start, 3), "end": round(p.end, 3)} for p in take.phones],
    }
    if take.play is not None:
        about |= {"size": cfg.size, "caption": who.caption, "mouth_box": mouth_box(take.play),
                  "mouth": [round(float(v), 3) for v in take.play.mouth[:, 0]]}
    return about


def _with_silence(words: list[Span], seconds: float) -> list[dict]:
    """Words with ``sil`` marks between them, as GRID has them."""
    rows: list[dict] = []
    now = 0.0
    for word in [*words, Span("", seconds, seconds)]:
        if word.start - now > 0.02:
            rows.append({"w": "sil", "start": round(now, 3), "end": round(word.start, 3)})
        if word.name:
            rows.append({"w": word.name, "start": round(word.start, 3), "end": round(word.end, 3)})
        now = word.end
    return rows
