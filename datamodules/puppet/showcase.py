"""Pictures of the data set for people: a contact sheet, and the prompt of a held-out puppet for ``stage=stream``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.media import encode_wav
from datamodules.puppet.config import PrepareConfig
from datamodules.puppet.identity import make_identity
from datamodules.puppet.performance import Performance
from datamodules.puppet.puppet import render
from datamodules.puppet.recipe import ClipPlan, held_out_seed, identity_seed
from datamodules.puppet.speech import speak
from datamodules.puppet.take import make_take
from datamodules.puppet.visemes import mouth_track

SHEET_SENTENCE = "place blue by a two now"
PROMPT_NUMBER = 999_999


def contact_sheet(cfg: PrepareConfig, path: Path, puppets: int = 8, columns: int = 10) -> None:
    """Rows of puppets (the last quarter held out) saying one sentence, frames from left to right."""
    seeds = [identity_seed(cfg, "train", i) for i in range(min(puppets - puppets // 4, cfg.identities))]
    seeds += [identity_seed(cfg, "val", i) for i in range(min(puppets // 4, cfg.val_identities))]
    rows = []
    for seed in seeds:
        who = make_identity(seed)
        speech = speak(SHEET_SENTENCE.split(), who.voice, cfg.sample_rate)
        count = round(speech.seconds * cfg.fps)
        at = np.linspace(1, count - 2, columns).astype(int)
        mouth = mouth_track(speech.phones, count, cfg.fps)[at]
        rows.append(np.concatenate(list(render(who, _posed(mouth), cfg.size)), axis=1))
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


def _posed(mouth: np.ndarray) -> Performance:
    """A performance of given mouths with the head still and the eyes on the viewer."""
    count = len(mouth)
    still = np.tile([0.0, 0.0, 0.0, 1.0], (count, 1))
    return Performance(mouth, np.ones(count), np.zeros((count, 2)), np.zeros(count), still)


def write_prompt(cfg: PrepareConfig, folder: Path) -> None:
    """``face.png`` (a validation puppet at rest), ``voice.wav`` (about three seconds of it) and ``prompt.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = ClipPlan("prompt", "val", PROMPT_NUMBER, held_out_seed(cfg, 0), ())
    take = make_take(plan, replace(cfg, min_s=3.0, max_s=5.0, max_sentences=1, edge_s=0.3, sentences=0))
    rest = render(take.who, _posed(np.array([[0.0, 0.12, 0.0, 0.0, 0.0]])), cfg.size)[0]
    Image.fromarray(rest).save(folder / "face.png")
    (folder / "voice.wav").write_bytes(encode_wav(take.wave, cfg.sample_rate))
    (folder / "prompt.json").write_text(json.dumps({"look": take.who.name, "voice_says": take.sentences}) + "\n")



