"""What the gate works with: the clips learnt by heart, the prompt of each as files, and its partners in the swaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from datamodules.evaluation_set import EvaluationSet
from datamodules.latent_shards import LatentStore
from pipelines.config.schema import RunConfig
from pipelines.evaluating.material import Rendering, recorded, through_codecs
from streamchar.errors import InputError
from streamchar.rollout.character import Character
from streamchar.transcript import normalise_words

MOST_CLIPS = 8
PICTURE_AT = 0.5
"""Where in the partner's clip the picture is taken, in shares of its length."""


@dataclass(frozen=True)
class Partners:
    """Numbers of the clips that lend a clip what is not its own.

    prompt: another utterance of the same speaker, whose picture and voice are the clip's prompt. text: one of the same
    speaker whose text is given in the swap of transcripts. look: a clip of another look, the swapped reference.
    """

    prompt: int
    text: int
    look: int


@dataclass(frozen=True)
class PromptFiles:
    """All that a stream is given: a picture, a voice and a text, as files."""

    picture: Path
    voice: Path
    text: Path


@dataclass
class GateClip:
    """A clip learnt by heart: its text, what it really is (recorded, else decoded), its codec floor, partners, prompt.
    """

    key: str
    text: str
    seconds: float
    real: Rendering
    codec: Rendering
    partners: Partners
    prompt: PromptFiles


def gate_clips(cfg: RunConfig, train: LatentStore, character: Character, folder: Path, bar: Progress) -> list[GateClip]:
    """Up to eight training clips, their prompts written to ``folder``.

    Raises:
        InputError: where the clips cannot be swapped (one look only, or a speaker with one sentence only).
    """
    clock, (video, audio) = character.clock, character.codecs()
    chosen = EvaluationSet(train, clock, character.window, character.units,
                           min(cfg.data.overfit_clips or MOST_CLIPS, MOST_CLIPS))
    truths = [chosen.truth(i) for i in range(len(chosen))]
    partners = choose_partners([t.text for t in truths], [t.speaker for t in truths], [t.look for t in truths])
    real, codec = [], []
    for truth in bar.track(truths, description="clips learnt by heart"):
        codec.append(through_codecs(truth, clock, video, audio))
        real.append(recorded(truth, clock, cfg.data.size) or codec[-1])
    prompts = [write_prompt(folder, t.key, real[p.prompt], t.text, clock.sample_rate)
               for t, p in zip(truths, partners, strict=True)]
    return [GateClip(t.key, t.text, t.seconds, r, c, p, f)
            for t, r, c, p, f in zip(truths, real, codec, partners, prompts, strict=True)]


def choose_partners(texts: Sequence[str], speakers: Sequence[str], looks: Sequence[str]) -> list[Partners]:
    """Partners of every clip; the prompt's clip says neither the clip's own text nor the swapped one, where possible.

    Raises:
        InputError: naming what the set of clips lacks.
    """
    said = [normalise_words(t) for t in texts]
    found = []
    for i, speaker in enumerate(speakers):
        after = [*range(i + 1, len(texts)), *range(i)]  # cyclic, so that every clip lends its text once
        others = [j for j in after if speakers[j] == speaker and said[j] != said[i]]
        faces = [j for j in after if looks[j] != looks[i]]
        if not others or not faces:
            lacking = "another sentence of its speaker" if not others else "a clip of another look"
            raise InputError(f"the gate swaps texts and faces, but clip {i} ({texts[i]!r}) has no {lacking}; train on "
                             "two looks or more with two sentences or more each, or set evaluate.gate=false")
        prompt = next((j for j in others if said[j] != said[others[0]]), others[-1])
        same = next((j for j in faces if said[j] == said[i]), faces[0])
        found.append(Partners(prompt, others[0], same))
    return found


def write_prompt(folder: Path, key: str, source: Rendering, text: str, sample_rate: int) -> PromptFiles:
    """``KEY.png``: the middle frame of ``source``; ``KEY.wav``: its sound; ``KEY.txt``: ``text``."""
    import soundfile
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = PromptFiles(*(folder / f"{key}.{kind}" for kind in ("png", "wav", "txt")))
    Image.fromarray(np.ascontiguousarray(source.frames[int(PICTURE_AT * len(source.frames))])).save(files.picture)
    soundfile.write(str(files.voice), source.sound, sample_rate)
    files.text.write_text(text + "\n", encoding="utf-8")
    return files
