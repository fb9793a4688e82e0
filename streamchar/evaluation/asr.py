"""Free speech recognition with a network from a local Hugging Face folder; nothing is downloaded.

The folder's configuration decides: CTC (wav2vec2, HuBERT and their like) or an encoder with a decoder (Whisper and its
like). Decoding is greedy, so the same sound always gives the same words. CTC says when a word is spoken; an encoder
with a decoder does not, and its words carry nan. Sounds longer than 30 s are cut at their quietest places.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamchar.errors import InputError
from streamchar.evaluation.recogniser import SAMPLE_RATE
from streamchar.segmentation import normalise_words, unspaced
from streamchar.transcript import Word

PIECE_S = 30.0
SEARCH_S = 5.0
"""A long sound is cut in the last so many seconds of a piece."""
PAUSE_S = 0.2
SILENT = 1e-4
"""Peak below which nothing is heard: Whisper would make words up."""
LEAST_S = 0.5
"""Shorter sounds are padded with silence: convolutional front ends need some samples."""


class NetworkRecogniser:
    """Hears any words. See :class:`streamchar.evaluation.recogniser.Recogniser`.

    Args:
        folder: with ``config.json``, weights, preprocessor and tokenizer.
        language: of the speech; only multilingual Whisper models are told.
        device: where it runs.

    Raises:
        InputError: when the folder is missing, incomplete, of another kind, or hears at another rate than 16 kHz.
    """

    def __init__(self, folder: str | Path, language: str = "en", device: str = "cpu") -> None:
        from transformers import AutoConfig, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor

        if not (Path(folder) / "config.json").is_file():
            raise InputError(f"recogniser {folder} holds no config.json; give a local Hugging Face folder of a CTC or "
                             "Whisper model")
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(folder, **safe)
            self._by_ctc = any(name.endswith("ForCTC") for name in config.architectures or ())
            kind = AutoModelForCTC if self._by_ctc else AutoModelForSpeechSeq2Seq
            self._model: Any = kind.from_pretrained(folder, **safe).float().eval().to(device)
            self._processor: Any = AutoProcessor.from_pretrained(folder, **safe)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"recogniser {folder} cannot be loaded: {error}; it must hold a CTC or Whisper model with "
                             "its processor, saved by save_pretrained") from error
        if self._by_ctc and not hasattr(self._processor.tokenizer, "word_delimiter_token"):
            raise InputError(f"recogniser {folder} has a tokenizer without word borders "
                             f"({type(self._processor.tokenizer).__name__}); give a CTC model of the wav2vec2 family")
        rate = self._processor.feature_extractor.sampling_rate
        if rate != SAMPLE_RATE:
            raise InputError(f"recogniser {folder} hears at {rate} Hz, {SAMPLE_RATE} is expected; give another model")
        self._language = {}
        if not self._by_ctc:
            write_numbers_out(self._model.generation_config, self._processor.tokenizer)
            if getattr(self._model.generation_config, "is_multilingual", False):
                self._language = {"language": language, "task": "transcribe"}

    @torch.no_grad()
    def hear(self, wave: Tensor) -> list[Word]:
        """(S,) at 16 kHz -> the words in order; seconds from the sound's start, or nan.

        Raises:
            InputError: if the sound is not (S,) or not finite.
        """
        if wave.ndim != 1 or not bool(torch.isfinite(wave).all()):
            raise InputError(f"a sound must be (samples,) and finite, got {tuple(wave.shape)}")
        samples = wave.detach().cpu().float().numpy()
        if not len(samples) or np.abs(samples).max() < SILENT:
            return []
        cuts = quiet_cuts(samples)
        words: list[Word] = []
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            piece = np.pad(samples[start:stop], (0, max(round(LEAST_S * SAMPLE_RATE) - (stop - start), 0)))
            inputs = self._processor(piece, sampling_rate=SAMPLE_RATE, return_tensors="pt", **(
                {} if self._by_ctc else {"return_attention_mask": True})).to(self._model.device)
            words += (self._spelled(inputs, start / SAMPLE_RATE, len(piece)) if self._by_ctc
                      else self._written(inputs))
        return words

    def _spelled(self, inputs: Any, start_s: float, samples: int) -> list[Word]:
        ids = self._model(**inputs).logits.argmax(-1)[0]
        found = self._processor.tokenizer.decode(ids, output_word_offsets=True, output_char_offsets=True)
        step = getattr(self._model.config, "inputs_to_logits_ratio", samples / len(ids)) / SAMPLE_RATE
        words = []
        for entry in _entries(found):
            parts = normalise_words(entry["word"])
            begin = start_s + entry["start_offset"] * step
            each = (entry["end_offset"] - entry["start_offset"]) * step / max(len(parts), 1)
            words += [Word(part, begin + i * each, begin + (i + 1) * each) for i, part in enumerate(parts)]
        return words

    def _written(self, inputs: Any) -> list[Word]:
        ids = self._model.generate(**inputs, do_sample=False, num_beams=1, **self._language)
        text = self._processor.batch_decode(ids, skip_special_tokens=True)[0]
        return [Word(word, math.nan, math.nan) for word in normalise_words(text)]


def _entries(found: Any) -> list[dict[str, Any]]:
    """Words with their offsets; where one is a run of characters without spaces, these with theirs."""
    rows: list[dict[str, Any]] = []
    for entry in found.word_offsets:
        inside = [{**c, "word": c["char"]} for c in found.char_offsets
                  if entry["start_offset"] <= c["start_offset"] and c["end_offset"] <= entry["end_offset"]]
        parts = normalise_words(entry["word"])
        rows += inside if len(inside) == len(parts) and all(map(unspaced, parts)) else [entry]
    return rows


def write_numbers_out(settings: Any, tokenizer: Any) -> None:
    """Forbid digits in a generation configuration: the texts to compare with hold words alone."""
    digits = {id for token, id in tokenizer.get_vocab().items()
              if set(token) & set("0123456789") and not token.startswith("<")}
    settings.suppress_tokens = sorted({*(settings.suppress_tokens or ()), *digits}) or None


def quiet_cuts(samples: NDArray[np.float32]) -> list[int]:
    """Borders of pieces of at most 30 s, the first 0 and the last the sound's end, each cut in the quietest .2 s."""
    longest, search, pause = (round(s * SAMPLE_RATE) for s in (PIECE_S, SEARCH_S, PAUSE_S))
    cuts = [0]
    while len(samples) - cuts[-1] > longest:
        first = cuts[-1] + longest - search
        energy = np.concatenate([[0], np.cumsum(samples[first:first + search].astype(np.float64) ** 2)])
        cuts.append(first + int(np.argmin(energy[pause:] - energy[:-pause])) + pause // 2)
    return [*cuts, len(samples)]
