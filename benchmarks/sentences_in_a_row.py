"""How many words are heard right where one sentence of the GRID grammar follows another in a stream.

``python benchmarks/sentences_in_a_row.py stage=evaluate preset=grid name=RUN data.shards=SHARDS [from=orchestrator
evaluate.steps=16] [row=8] [seconds=24] [streams=16]``: ``row`` new sentences a stream of ``seconds`` (3, 20), one
stream for each of up to ``streams`` (32) held-out clips; heard by pocketsphinx with the grammar of several sentences.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.evaluation_set import EvaluationSet  # noqa: E402
from datamodules.latent_shards import LatentStore  # noqa: E402
from pipelines.config.compose import compose  # noqa: E402
from pipelines.config.grammar import parse  # noqa: E402
from pipelines.evaluating.sentences import new_sentences  # noqa: E402
from pipelines.evaluating.short import TOGETHER, speakers_of  # noqa: E402
from pipelines.evaluating.streams import speak  # noqa: E402
from pipelines.evaluating.voices import wave_of  # noqa: E402
from pipelines.run_directory import RunDirectory  # noqa: E402
from streamchar.evaluation.recogniser import GRID_SLOTS, PocketsphinxGrid  # noqa: E402
from streamchar.evaluation.word_alignment import align_words  # noqa: E402

SENTENCES_SEED = 5


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Print the share of right words of each of the sentences."""
    own = {"row": 3, "seconds": 20, "streams": 32}
    own |= {key: int(value) for key, _, value in (a.partition("=") for a in argv) if key in own}
    row = own["row"]
    cfg = compose(parse([a for a in argv if a.partition("=")[0] not in own]))
    directory = RunDirectory.of(cfg)
    speaker = speakers_of(cfg, directory)[0]
    character, clock = speaker.character, speaker.character.clock
    video, audio = character.codecs()
    store = LatentStore(directory.input("encode", "latents/val"), clock,
                        {"video": video.fingerprint, "audio": audio.fingerprint})
    clips = EvaluationSet(store, clock, character.window, character.units, own["streams"], cfg.evaluate.seed)
    texts = new_sentences(row * len(clips), [], SENTENCES_SEED)
    words = [" ".join(texts[row * i:row * (i + 1)]).split() for i in range(len(clips))]
    recogniser, right = PocketsphinxGrid(several=True), []
    for first in range(0, len(clips), TOGETHER):
        told = words[first:first + TOGETHER]
        prompts = replace(clips.batch(first, len(told)), words=told)
        takes, _, _ = speak(character, prompts, speaker.plan, float(own["seconds"]), cfg.evaluate.seed)
        for text, take in zip(told, takes, strict=True):
            heard = [word.text for word in recogniser.hear(wave_of(take.sound, clock))]
            right.append(1 - align_words(text, heard)[0])
    shares = 100 * np.mean(right, axis=0).reshape(row, len(GRID_SLOTS)).mean(axis=1)
    print(f"{speaker.column}, {len(right)} streams, right words by sentence, %: {' '.join(f'{s:.0f}' for s in shares)}")


if __name__ == "__main__":
    main(sys.argv[1:])
