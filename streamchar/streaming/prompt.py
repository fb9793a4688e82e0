"""From files to a stream's beginning: picture + voice + text -> RolloutBatch.

The picture becomes the reference latent (one-frame group), the latest ``anchor_s`` seconds of the voice the
right-aligned anchor. What is missing is replaced by the model's learned null, with one line that says so.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.errors import InputError
from streamchar.orchestrator.text import ALPHABET, SpelledWords
from streamchar.streaming.decoding import device_of
from streamchar.streaming.reading import read_sound
from streamchar.transcript import normalise_words
from streamchar.types import RolloutBatch
from streamchar.window import WindowConfig

log = logging.getLogger(__name__)

PUNCTUATION = set(".,;:!?-\"()'\u2019\u2018\u201c\u201d\u2013\u2014\u2026/&")
SILENT_RMS = 1e-4
MIN_VOICE_S = 0.1


def read_picture(path: str | Path, size: tuple[int, int]) -> Tensor:
    """A picture file, center-cropped to the frame's shape and resized: (3, H, W) float in [0, 1].

    Raises:
        InputError: where the file is missing or is no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise InputError(f"reference picture {path} does not exist; give a png or jpg of the character's face")
    try:
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"reference {path} is no picture that can be read ({error}); give a png or jpg") from error
    fitted = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255


def read_voice(path: str | Path, sample_rate: int, seconds: float) -> Tensor:
    """The latest ``seconds`` of the voice in a sound file, without silence at its end: (S,) float in [-1, 1].

    Raises:
        InputError: where the file is missing, holds no sound, is silent or shorter than ``MIN_VOICE_S``.
    """
    wave = torch.from_numpy(read_sound(path, sample_rate))
    rms = float(wave.square().mean().sqrt())
    if not torch.isfinite(wave).all() or rms < SILENT_RMS:
        raise InputError(f"voice {path} is silent (rms {rms:.1e}, at least {SILENT_RMS} expected); give a recording "
                         "in which the voice can be heard")
    block = max(sample_rate // 50, 1)
    levels = wave[:len(wave) // block * block].view(-1, block).square().mean(1).sqrt()
    heard = (levels > 0.03 * levels.max()).nonzero() if len(levels) else levels
    if len(heard):
        wave = wave[:(int(heard[-1]) + 1) * block]
    if len(wave) < MIN_VOICE_S * sample_rate:
        raise InputError(f"voice {path} is {len(wave) / sample_rate:.2f} s long, at least {MIN_VOICE_S} s expected; "
                         "give a recording of a second or more")
    return wave[-round(seconds * sample_rate):]


def transcript_words(text: str, units: object | None = None) -> list[str]:
    """The words of a text, as :func:`live_words`. An empty text is allowed: the character keeps quiet."""
    words = live_words(text, units)
    if not words:
        log.warning("the transcript is empty: the character keeps quiet")
    return words


def live_words(text: str, units: object | None = None) -> list[str]:
    """The words of a piece of text; warns once, naming them, of characters that the speller does not know.

    Unknown letters stay in their words under one common id; marks that are no letters are dropped.
    """
    if units is None or isinstance(units, SpelledWords):
        known = set(ALPHABET) | PUNCTUATION
        unknown = sorted({c for c in text.lower() if not c.isspace() and c not in known})
        if unknown:
            names = " ".join(repr(c) for c in unknown[:12]) + (" ..." if len(unknown) > 12 else "")
            log.warning("the transcript has characters outside the alphabet (%s): letters are spoken as one unknown "
                        "sound, other marks are skipped", names)
    return normalise_words(text)


def build_prompt(texts: list[str], pictures: list[Tensor | None], voices: list[Tensor | None], *,
                 video_codec: VideoCodec, audio_codec: AudioCodec, clock: ChunkClock, window: WindowConfig,
                 size: tuple[int, int], units: object | None = None, keys: list[str] | None = None) -> RolloutBatch:
    """Streams to begin, one per text.

    Args:
        texts: what each character says (may be empty).
        pictures: (3, H, W) in [0, 1] at the codec's frame size, or None.
        voices: (S,) at the codec's sample rate, or None; the latest ``window.anchor_s`` seconds are used.
        size: frame size (H, W), for characters without a picture.
    """
    b = len(texts)
    frames = torch.stack([p if p is not None else torch.zeros(3, *size) for p in pictures])
    ref = video_codec.encode(frames[:, None].to(device_of(video_codec))).float().cpu()  # (B, C, 1, h, w)
    has_ref = torch.tensor([p is not None for p in pictures])
    if not has_ref.all():
        log.warning("no reference picture: the face is the model's own invention")
    ref = ref * has_ref.view(-1, 1, 1, 1, 1)
    anchor, mask = encode_anchor(voices, audio_codec, window.anchor_latents(clock))
    if not mask.any(1).all():
        log.warning("no voice prompt: the voice is the model's own invention")
    motion = torch.zeros(b, ref.shape[1], window.motion_latents, *ref.shape[3:])
    sink = torch.zeros(b, ref.shape[1], window.sink_latents, *ref.shape[3:])
    recent = window.recent_latents(clock)
    return RolloutBatch(
        ref=ref, has_ref=has_ref, anchor=anchor, anchor_mask=mask, words=[transcript_words(t, units) for t in texts],
        has_start=torch.zeros(b, dtype=torch.bool), start_motion=motion, start_sink=sink,
        start_audio=torch.zeros(b, recent, anchor.shape[2]),
        start_audio_mask=torch.zeros(b, recent, dtype=torch.bool), start_spoken=[[] for _ in range(b)],
        start_cursor=torch.zeros(b), index=torch.arange(b), keys=keys or [f"stream-{i}" for i in range(b)])


def encode_anchor(voices: list[Tensor | None], codec: AudioCodec, size: int) -> tuple[Tensor, Tensor]:
    """Voice prompts -> anchor (B, size, C) right-aligned and its mask (B, size); None gives an empty mask."""
    anchor = torch.zeros(len(voices), size, codec.channels)
    mask = torch.zeros(len(voices), size, dtype=torch.bool)
    for i, wave in enumerate(voices):
        if wave is None or not size:
            continue
        latents = codec.encode(wave[None].to(device_of(codec))).float().cpu()[0, -size:]  # (T, C)
        if len(latents):
            anchor[i, -len(latents):], mask[i, -len(latents):] = latents, True
    return anchor, mask
