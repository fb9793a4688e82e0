"""How many words are misheard after a mel codec alone, before any model: the floor of all generated speech.

    python benchmarks/codec_floor.py                                   # espeak sentences, a few minutes on one core
    python benchmarks/codec_floor.py --grid ../shared/data/grid        # real clips too
    python benchmarks/codec_floor.py --set channels=32,64 --set level_floor=0.01,0.1

Sentences follow the GRID grammar; every codec is fitted on other sentences than it is tested on. ``noise`` is Gaussian
noise added to the normalised latents: what a generative model that is not exact would do. One row per codec: word
errors in per cent at each noise, and how many times faster than real time one stream decodes.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.clip_reader import read_clips  # noqa: E402
from datamodules.puppet.speech import Voice, speak  # noqa: E402
from datamodules.quarantine import Quarantine  # noqa: E402
from datamodules.shards import expand_shards  # noqa: E402
from streamchar.codecs.config import AudioCodecConfig  # noqa: E402
from streamchar.codecs.mel import MelCodec  # noqa: E402
from streamchar.codecs.store import build_codec  # noqa: E402
from streamchar.evaluation.recogniser import GRID_SLOTS, PocketsphinxGrid  # noqa: E402
from streamchar.evaluation.words import WordScore, score_words  # noqa: E402

VOICES = ("en-us", "en-us+f3", "en-us+m7", "en-gb-x-rp", "en+f2", "en-us+m2", "en-us+f1", "en")
NOISES = (0.0, 0.3, 0.5)
EDGE_S = 0.25


@dataclass
class Speech:
    """Sounds of one source: those to fit on, those to test (padded to one length) with their texts."""

    name: str
    fit: list[Tensor]
    test: Tensor  # (N, S)
    lengths: list[int]
    texts: list[str]


def main() -> None:
    """Print the table."""
    options = _arguments()
    torch.set_num_threads(1)
    sources = [_espeak(options.clips)]
    if options.grid:
        sources.append(_grid(options.grid, options.clips))
    recogniser = PocketsphinxGrid()
    print(_heading())
    print("| codec | " + " | ".join(f"{s.name}, noise {n:g}" for s in sources for n in NOISES) + " | real time x |")
    print("|---" * (2 + len(sources) * len(NOISES)) + "|")
    raw = [_score(recogniser, s, s.test) for s in sources]
    print("| none (raw) | " + " | ".join(c for r in raw for c in [str(r), *["-"] * (len(NOISES) - 1)]) + " | - |")
    for change in _settings(options.set):
        codecs = [build_codec(AudioCodecConfig(**change)).fit(s.fit) for s in sources]  # type: ignore[arg-type]
        scores = [_floor(recogniser, s, c, noise) for s, c in zip(sources, codecs, strict=True) for noise in NOISES]
        cells = " | ".join(f"{100 * s.wer:.1f}" for s in scores)
        label = ", ".join(f"{k}={v:g}" for k, v in change.items())
        print(f"| {label} | {cells} | {_speed(sources[0], codecs[0]):.0f} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, help="folder of the GRID shards (train and val)")
    parser.add_argument("--clips", type=int, default=40, help="test sentences per source")
    parser.add_argument("--set", action="append", default=[],
                        help="codec field and values: mels=40,80 (default channels=32,48,64,96,128)")
    return parser.parse_args()


def _settings(given: Sequence[str]) -> Iterator[dict[str, float]]:
    """Every combination of the values asked for."""
    kinds = {f.name: type(getattr(AudioCodecConfig(), f.name)) for f in fields(AudioCodecConfig)}
    names, values = [], []
    for entry in given or ["channels=32,48,64,96,128"]:
        name, _, listed = entry.partition("=")
        if kinds.get(name) not in (int, float):
            raise SystemExit(f"{name!r} is no numeric field of the sound codec; known: "
                             + ", ".join(k for k, t in kinds.items() if t in (int, float)))
        names.append(name)
        values.append([kinds[name](v) for v in listed.split(",")])
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def _floor(recogniser: PocketsphinxGrid, speech: Speech, codec: MelCodec, noise: float) -> WordScore:
    latents = codec.encode(speech.test)
    jitter = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    return _score(recogniser, speech, codec.decode(latents + noise * jitter))


def _score(recogniser: PocketsphinxGrid, speech: Speech, waves: Tensor) -> WordScore:
    heard = [" ".join(w.text for w in recogniser.hear(wave[:n]))
             for wave, n in zip(waves, speech.lengths, strict=True)]
    return score_words(speech.texts, heard)


def _speed(speech: Speech, codec: MelCodec) -> float:
    """Seconds of sound per second of one core, one stream, latent by latent."""
    latents = codec.encode(speech.test[:3]).flatten(0, 1)
    codec.decode(latents[:10])
    began = time.process_time()
    wave = codec.decode(latents)
    return len(wave) / codec.sample_rate / (time.process_time() - began)


def _espeak(count: int) -> Speech:
    random = np.random.default_rng(0)
    waves, texts = [], []
    for i in range(count + 64):
        words = [str(random.choice(list(slot))) for slot in GRID_SLOTS.values()]
        voice = Voice(VOICES[i % len(VOICES)], int(random.integers(120, 150)), int(random.integers(35, 65)), 50)
        edge = int(EDGE_S * 16000)
        waves.append(torch.nn.functional.pad(torch.from_numpy(speak(words, voice, 16000).wave), (edge, edge)))
        texts.append(" ".join(words))
    return _collect("espeak", waves[count:], waves[:count], texts[:count])


def _grid(folder: Path, count: int) -> Speech:
    def clips(pattern: str, most: int) -> list[tuple[Tensor, str]]:
        shards = expand_shards(sorted(str(p) for p in folder.glob(pattern)))
        found = itertools.islice(read_clips(shards, Quarantine(), sample_rate=16000), most)
        return [(clip.wave, clip.text) for clip in found]

    test = clips("*val*.tar", count)
    return _collect("GRID s1", [w for w, _ in clips("*train-00000.tar", 64)], [w for w, _ in test],
                    [t for _, t in test])


def _collect(name: str, fit: list[Tensor], test: list[Tensor], texts: list[str]) -> Speech:
    longest = -(-max(map(len, test)) // 640) * 640
    padded = torch.stack([torch.nn.functional.pad(w, (0, longest - len(w))) for w in test])
    return Speech(name, fit, padded, [len(w) for w in test], texts)


def _heading() -> str:
    here = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True,
                            check=False).stdout.strip() or "no git"
    return (f"Command: python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}\n"
            f"Commit {commit}, {time.strftime('%Y-%m-%d')}, {platform.machine()} one core, torch {torch.__version__}\n")


if __name__ == "__main__":
    main()
