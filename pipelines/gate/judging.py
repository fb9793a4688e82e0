"""From the gate's streams to lines with limits: words, faces and mouths, each beside what needs no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from datamodules.conform import fit_wave
from pipelines.evaluating.material import Rendering
from pipelines.evaluating.mouths import Mouth
from pipelines.gate.material import GateClip
from pipelines.gate.speaking import Condition
from streamchar.clock import ChunkClock
from streamchar.evaluation.identity import appearance, distance
from streamchar.evaluation.recogniser import SAMPLE_RATE, Recogniser
from streamchar.evaluation.sync import correlation_curve, mean_score, sync_score
from streamchar.evaluation.verdict import Line
from streamchar.evaluation.words import other_texts_score, score_words

POINTS = 10.0
"""Word error that a stream may have above the codec's floor, in points."""
FOLLOWS = 0.75
"""Share of the texts' own difference that speech with a swapped text must show against the text it replaced."""
NEARER_FRAMES = 90.0
"""Share of frames, in %, that must be nearer to the picture given than to the look it replaced."""
MOUTH_SHIFT = 3
"""Frames by which a mouth may come earlier or later than the recorded one and still say the same."""


@dataclass
class Heard:
    """What the recogniser heard: floor, recorded, noise, and each condition's streams by its name."""

    recorded: list[str]
    floor: list[str]
    noise: list[str]
    streams: dict[str, list[str]]


def hear_all(clips: list[GateClip], conditions: list[Condition], recogniser: Recogniser, clock: ChunkClock, seed: int,
             bar: Progress) -> Heard:
    """Recognise every sound once."""
    rng = np.random.default_rng(seed)
    noise = [Rendering(c.codec.frames, (rng.standard_normal(len(c.codec.sound)) * np.sqrt(np.mean(
        c.codec.sound**2))).astype(np.float32)) for c in clips]
    task = bar.add_task("hearing words", total=(3 + len(conditions)) * len(clips))

    def hear(renderings: list[Rendering]) -> list[str]:
        found = []
        for r in renderings:
            wave = fit_wave(torch.from_numpy(r.sound), clock.sample_rate, SAMPLE_RATE)
            found.append(" ".join(w.text for w in recogniser.hear(wave)) if len(wave) else "")
            bar.advance(task)
        return found

    return Heard(hear([c.real for c in clips]), hear([c.codec for c in clips]), hear(noise),
                 {c.name: hear(c.takes) for c in conditions})


def word_lines(clips: list[GateClip], conditions: list[Condition], heard: Heard) -> list[Line]:
    """Word errors in %: floors and baselines, then what must hold."""
    texts = [c.text for c in clips]
    wrong = other_texts_score(texts, texts).wer * 100
    floor, own = _wer(texts, heard.floor), _wer(texts, heard.streams["streams"])
    others = 100 * other_texts_score(texts, heard.streams["streams"]).wer
    # without c_a a model may still say one of the sentences it knows, but not the one asked for
    lost = (own + others) / 2
    by_name = {c.name: c for c in conditions}
    given = [texts[j] for j in by_name["texts swapped"].texts]
    swapped = heard.streams["texts swapped"]
    lines = [
        Line("words", "recorded clips", _wer(texts, heard.recorded), "%", note="the recogniser's own errors"),
        Line("words", "codec floor", floor, "%", note="recorded clips encoded and decoded"),
        Line("words", "streams", own, "%", most=floor + POINTS, note=f"floor + {POINTS:g} points"),
        Line("words", "streams, other texts", others, "%", note="no model: another sentence of the set"),
        Line("words", "noise", _wer(texts, heard.noise), "%", note="no model: white noise as loud as the speech"),
        Line("words", "texts swapped, text given", _wer(given, swapped), "%", most=floor + POINTS,
             note="must follow the text: floor + 10 points"),
        Line("words", "texts swapped, text replaced", _wer(texts, swapped), "%", least=FOLLOWS * _wer(texts, given),
             note=f"must be wrong: {FOLLOWS:.0%} of {_wer(texts, given):.0f} %, the texts against one another"),
        Line("words", "references swapped", _wer(texts, heard.streams["references swapped"]), "%",
             note="another look's picture with this voice, never learnt together"),
    ]
    for name in ("c_a null", "c_a zero"):
        lines.append(Line("words", name, _wer(texts, heard.streams[name]), "%", least=lost,
                          note=f"must be lost: halfway from the streams to other texts ({wrong:.0f} % between texts)"))
    said = [r.pointers[-1] if r.pointers else 0.0 for r in by_name["streams"].takes]
    ended = sum(p >= len(t.split()) - 0.01 for p, t in zip(said, texts, strict=True))
    lines.append(Line("words", "streams that came to their end", float(ended), f"of {len(texts)}",
                      note="the pointer reached the last word by itself"))
    return lines


def face_lines(clips: list[GateClip], conditions: list[Condition]) -> list[Line]:
    """Whether the face is that of the picture: for each frame, the nearer of two looks' pictures."""
    pictures = [appearance(_picture(clip)[None])[0] for clip in clips]
    by_name = {c.name: c for c in conditions}
    streams, swapped = by_name["streams"], by_name["references swapped"]
    other = [c.partners.look for c in clips]
    own = list(range(len(clips)))
    scale = float(np.mean([distance(pictures[i], pictures[j]) for i, j in enumerate(other)]))
    own_near, own_far = _distances(streams, pictures, own), _distances(streams, pictures, other)
    near, far = _distances(swapped, pictures, swapped.pictures), _distances(swapped, pictures, own)
    nearer = sum(float(n.mean()) < float(f.mean()) for n, f in zip(near, far, strict=True))
    every = f"of {len(clips)}"
    return [
        Line("face", "distance between the looks", scale, note="no model: their pictures"),
        Line("face", "streams, picture given", _mean(own_near)),
        Line("face", "streams, other look", _mean(own_far)),
        Line("face", "references swapped, picture given", _mean(near)),
        Line("face", "references swapped, look replaced", _mean(far)),
        Line("face", "swapped faces nearer to the picture given", float(nearer), every, least=float(len(clips)),
             note="must follow the picture: every stream"),
        Line("face", "their frames nearer to it", 100 * _share(near, far), "%", least=NEARER_FRAMES),
    ]


def mouth_lines(clips: list[GateClip], conditions: list[Condition], mouth: Mouth, clock: ChunkClock,
                max_lag: int) -> list[Line]:
    """Whether the mouth says the sentence asked for: its correlation with the recorded mouth of the same clip."""
    real = [mouth.detector.opening(c.codec.frames) for c in clips]
    openings = {c.name: [mouth.detector.opening(r.frames) for r in c.takes] for c in conditions}
    own = list(range(len(clips)))
    other = [c.partners.text for c in clips]
    right, wrong = _alike(openings["streams"], real, own), _alike(openings["streams"], real, other)
    lines = [
        Line("mouth", "streams", right, "r", note="with the recorded mouth of the clip"),
        Line("mouth", "streams, other sentences", wrong, "r", note="no model: with the mouth of another sentence"),
    ]
    lost = (right + wrong) / 2
    for name in ("c_a null", "c_a zero"):
        lines.append(Line("mouth", name, _alike(openings[name], real, own), "r", most=lost,
                          note="must be lost: halfway to other sentences"))
    lines += [*_sync(conditions[0], openings, clock, max_lag, "streams"),
              *_sync(conditions[3], openings, clock, max_lag, "c_a null")]
    return lines


def _sync(condition: Condition, openings: dict[str, list[NDArray[np.float64]]], clock: ChunkClock, max_lag: int,
          name: str) -> list[Line]:
    """Lag and correlation of the mouth with the stream's own sound; both are generated, so both may mumble alike."""
    scores = [sync_score(o, r.sound, clock.fps, clock.sample_rate, max_lag)
              for o, r in zip(openings[condition.name], condition.takes, strict=True) if len(o) >= 4 * max_lag]
    if not scores:
        return []
    score = mean_score(scores)
    return [Line("mouth", f"{name}, with its own sound", score.best, "r", note="the two together, whatever they say"),
            Line("mouth", f"{name}, lag to its own sound", score.lag, "frames")]


def _alike(openings: list[NDArray[np.float64]], real: list[NDArray[np.float64]], which: list[int]) -> float:
    """Mean over streams of the best correlation within ``MOUTH_SHIFT`` frames; nan where no mouth moves."""
    found = []
    for opening, j in zip(openings, which, strict=True):
        size = min(len(opening), len(real[j]))
        if size > 4 * MOUTH_SHIFT:
            curve = correlation_curve(opening[:size], real[j][:size], MOUTH_SHIFT)
            found.append(0.0 if np.isnan(curve).all() else float(np.nanmax(curve)))  # a still mouth says nothing
    return float(np.mean(found)) if found else float("nan")


def _wer(texts: list[str], heard: list[str]) -> float:
    return 100 * score_words(texts, heard).wer


def _picture(clip: GateClip) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(clip.prompt.picture) as image:
        return np.asarray(image.convert("RGB"))


def _distances(condition: Condition, pictures: list[NDArray[np.float64]], which: list[int]
               ) -> list[NDArray[np.float64]]:
    """Per stream the distance (F,) of its frames to the picture of the clip that ``which`` names."""
    return [distance(appearance(take.frames), pictures[j]) for take, j in zip(condition.takes, which, strict=True)]


def _mean(values: list[NDArray[np.float64]]) -> float:
    return float(np.mean([v.mean() for v in values]))


def _share(near: list[NDArray[np.float64]], far: list[NDArray[np.float64]]) -> float:
    """Share of frames that are nearer."""
    return float(np.mean(np.concatenate([n < f for n, f in zip(near, far, strict=True)])))
