"""When the words of a cue are said: pocketsphinx (English), or forced alignment with a local CTC model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from datamodules.intake.rejection import Rejected
from datamodules.intake.transcripts import Cue, Token
from streamchar.errors import InputError
from streamchar.evaluation.recogniser import SAMPLE_RATE, PocketsphinxAligner
from streamchar.segmentation import unspaced, written_words
from streamchar.transcript import Word

MARGIN_S = 0.3
"""Subtitles come a little late and go a little early: so much sound around a cue is listened to as well."""
PIECE_S = 30.0
LEAST_S = 0.5
LONGEST_S = 600.0
"""Text and sound are aligned in pieces up to this length; memory grows with the square."""


_LATIN = re.compile("[a-z0-9]")


class Aligner(Protocol):
    """Finds known words in a sound."""

    def align(self, wave: Tensor, words: Sequence[str]) -> list[Word] | None:
        """(S,) at 16 kHz -> one :class:`Word` per given word, or None where they do not fit."""


class CtcAligner:
    """Forced alignment (torchaudio) on the frames of a CTC model of the wav2vec2 family.

    Args:
        folder: local Hugging Face folder of a model with a character vocabulary.

    Raises:
        InputError: when the folder is missing, incomplete, or hears at another rate than 16 kHz.
    """

    def __init__(self, folder: str | Path) -> None:
        if not (Path(folder) / "config.json").is_file():
            raise InputError(f"aligner {folder} holds no config.json; give a local Hugging Face folder of a CTC model "
                             "(wav2vec2 family) as intake.aligner")
        from transformers import AutoModelForCTC, AutoProcessor

        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._model: Any = AutoModelForCTC.from_pretrained(folder, **safe).float().eval()
            self._processor: Any = AutoProcessor.from_pretrained(folder, **safe)
            rate = self._processor.feature_extractor.sampling_rate
            self._ids: dict[str, int] = self._processor.tokenizer.get_vocab()
            self._border: str = self._processor.tokenizer.word_delimiter_token
            self._blank = int(self._processor.tokenizer.pad_token_id)
        except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
            raise InputError(f"aligner {folder} cannot be loaded: {error}; it must hold a CTC model with its "
                             "processor, saved by save_pretrained") from error
        if rate != SAMPLE_RATE:
            raise InputError(f"aligner {folder} hears at {rate} Hz, {SAMPLE_RATE} is expected; give another model")

    @torch.no_grad()
    def align(self, wave: Tensor, words: Sequence[str]) -> list[Word] | None:
        """See :class:`Aligner`."""
        from torchaudio.functional import forced_align, merge_tokens

        spelled = [self._spell(w) for w in words]
        _refuse_unknown([w for w, ids in zip(words, spelled, strict=True) if not ids])
        # Models of scripts without spaces have learnt no border between their characters.
        borders = [not (unspaced(a) or unspaced(b)) for a, b in pairwise(words)]
        targets = spelled[0] + [i for border, ids in zip(borders, spelled[1:], strict=True)
                                for i in ([self._ids[self._border]] if border else []) + ids]
        scores, step = self._scores(wave)
        repeats = sum(a == b for a, b in zip(targets, targets[1:], strict=False))
        if len(scores) < len(targets) + repeats:
            return None
        path, likely = forced_align(scores[None], torch.tensor([targets]), blank=self._blank)
        spans = merge_tokens(path[0], likely[0], blank=self._blank)
        found, at = [], 0
        for word, ids, border in zip(words, spelled, [*borders, False], strict=True):
            mine = spans[at:at + len(ids)]
            found.append(Word(word, mine[0].start * step, mine[-1].end * step))
            at += len(ids) + border
        return found

    def _spell(self, word: str) -> list[int]:
        """Ids of the word's characters, in the model's case; characters that it lacks are left out."""
        best = max((word.upper(), word.lower()), key=lambda w: sum(c in self._ids for c in w))
        return [self._ids[c] for c in best if c in self._ids]

    def _scores(self, wave: Tensor) -> tuple[Tensor, float]:
        """Log-probabilities (T, vocabulary) of the whole sound, heard in pieces, and seconds per row."""
        step = self._model.config.inputs_to_logits_ratio
        piece = round(PIECE_S * SAMPLE_RATE) // step * step
        rows = []
        for part in wave.split(piece):
            part = torch.nn.functional.pad(part, (0, max(round(LEAST_S * SAMPLE_RATE) - len(part), 0)))
            inputs = self._processor(part.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
            logits = self._model(**inputs).logits[0]
            # Unpadded convolutions give a row or two less than the piece is long.
            missing = len(part) // step - len(logits)
            rows.append(torch.cat([logits, logits[-1:].expand(max(missing, 0), -1)]))
        return torch.cat(rows).log_softmax(-1), step / SAMPLE_RATE


def _refuse_unknown(words: list[str]) -> None:
    """Put a text aside that the aligner cannot spell; any times it gave such words would be guesses.

    Raises:
        Rejected: ``text does not fit``.
    """
    if words:
        raise Rejected("text does not fit", f"the aligner knows no letter of {', '.join(map(repr, words[:5]))}; give "
                                            "one of the language as intake.aligner, or word times beside the recording")


def open_aligner(folder: str | None) -> Aligner:
    """The CTC model of ``folder``, or pocketsphinx."""
    return CtcAligner(folder) if folder else PocketsphinxAligner()


def time_words(cue: Cue, wave: Tensor, aligner: Aligner) -> list[Token]:
    """The cue's words as they are written, with seconds of the recording.

    Args:
        wave: (S,) of the whole recording at 16 kHz.

    Raises:
        Rejected: ``text does not fit``.
    """
    begin = max(cue.start - MARGIN_S, 0.0) if cue.start else 0.0
    end = min(cue.end + MARGIN_S, len(wave) / SAMPLE_RATE)
    written = written_words(cue.text)
    words = [part for _, parts in written for part in parts]
    if end - begin > LONGEST_S:
        raise Rejected("text does not fit", f"{end - begin:.0f} s in one piece, at most {LONGEST_S:.0f} are aligned: "
                                            "give .srt, .vtt or .json with times, or intake.asr and no text")
    if isinstance(aligner, PocketsphinxAligner):
        _refuse_unknown([w for w in words if not _LATIN.search(w)])
    sound = wave[round(begin * SAMPLE_RATE):round(end * SAMPLE_RATE)]
    found = aligner.align(sound, words) if len(sound) >= LEAST_S * SAMPLE_RATE else None
    if found is None:
        raise Rejected("text does not fit", cue.text if len(cue.text) < 80 else cue.text[:77] + "...")
    tokens, at = [], 0
    for text, parts in written:
        mine = found[at:at + len(parts)]
        tokens.append(Token(text, begin + mine[0].start, min(begin + mine[-1].end, end)))
        at += len(parts)
    return tokens
