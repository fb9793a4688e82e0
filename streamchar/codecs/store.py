"""Making, fitting, saving and loading codecs: a folder with config.json and model.safetensors, or the two as objects.

    codecs = fit_codecs(cfg.codec, clips)              # clips: pairs (frames or None, wave or None)
    save_codec(codecs.video, folder / "video")
    codec = load_codec(folder / "video")
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from streamchar.codecs.config import AudioCodecConfig, CodecConfig, VideoCodecConfig
from streamchar.codecs.ltx2_audio import Ltx2AudioCodec
from streamchar.codecs.lyra import LyraCodec
from streamchar.codecs.mel import MelCodec
from streamchar.codecs.no_pictures import NoPictures
from streamchar.codecs.pca_video import PcaVideoCodec
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.codecs.taef2 import Taef2Codec
from streamchar.codecs.wan_vae import WanVaeCodec
from streamchar.errors import CheckpointError, InputError

__all__ = ["AudioCodecConfig", "CodecConfig", "Codecs", "VideoCodecConfig", "build_codec", "codec_from_state",
           "codec_state", "fit_codecs", "load_codec", "save_codec"]

CLASSES: dict[str, Any] = {c.kind: c for c in (PcaVideoCodec, Taef2Codec, WanVaeCodec, NoPictures, MelCodec,
                                                LyraCodec, Ltx2AudioCodec)}


@dataclass
class Codecs:
    """A run's two codecs."""

    video: VideoCodec
    audio: AudioCodec


def build_codec(cfg: VideoCodecConfig | AudioCodecConfig) -> Any:
    """The codec that ``cfg`` names, not yet fitted.

    Raises:
        InputError: for values that do not fit, or missing files.
    """
    if problems := cfg.problems():
        raise InputError("; ".join(problems))
    cls = CLASSES[cfg.kind]
    if hasattr(cls, "from_folder"):  # its sizes are those of the folder
        return cls.from_folder(cfg.path)
    wanted = inspect.signature(cls.__init__).parameters
    settings = {k: v for k, v in vars(cfg).items() if k in wanted and k != "path"}
    codec = cls(**settings)
    if cfg.path is not None and hasattr(codec, "load_files"):
        codec.load_files(cfg.path)
    return codec


def fit_codecs(cfg: CodecConfig, clips: Iterable[tuple[Tensor | None, Tensor | None]],
               audio: AudioCodec | None = None) -> Codecs:
    """Build both codecs and fit what needs fitting on a modest sample of clips (some 16 to 64).

    Args:
        cfg: which codecs.
        clips: pairs of frames (F, 3, H, W) uint8 or float in [0, 1], or None, and wave (S,) at 16 kHz, or None. All
            are held in memory at once.
        audio: a sound codec that is there already, in place of one that is fitted.

    Raises:
        InputError: no clips with pictures or none with sound, values that do not fit.
    """
    video = build_codec(cfg.video)
    sound: Any = audio if audio is not None else build_codec(cfg.audio)
    frames: list[Tensor] = []
    waves: list[Tensor] = []
    for pictures, wave in clips:
        if pictures is not None:
            frames.append(pictures)
        if wave is not None:
            waves.append(wave)
    video.fit(frames)
    if audio is None:
        sound.fit(waves)
    return Codecs(video, sound)


def codec_state(codec: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``config`` (kind, settings, fingerprint; goes into JSON) and weights of a codec."""
    weights = {name: value.detach().cpu().contiguous() for name, value in codec.state_dict().items()}
    return {"kind": codec.kind, "settings": codec.settings(), "fingerprint": codec.fingerprint}, weights


def codec_from_state(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`codec_state`.

    Raises:
        CheckpointError: for an unknown kind, weights that do not fit, or another fingerprint than the recorded one.
    """
    kind = config.get("kind")
    if kind not in CLASSES:
        raise CheckpointError(f"unknown codec kind {kind!r}; this version knows {', '.join(sorted(CLASSES))}")
    try:
        codec = CLASSES[kind](**config["settings"])
        codec.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, KeyError) as error:
        raise CheckpointError(f"the stored {kind} codec does not fit this version: {error}; "
                              "run stage=encode again") from error
    if isinstance(codec, nn.Module):
        codec.eval().requires_grad_(False)
    if codec.fingerprint != config.get("fingerprint"):
        raise CheckpointError(f"the stored {kind} codec is damaged: its fingerprint is {codec.fingerprint[:12]}, "
                              f"recorded was {str(config.get('fingerprint'))[:12]}; run stage=encode again")
    return codec


def save_codec(codec: Any, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; the config comes last and marks the folder complete."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = codec_state(codec)
    for name, write in (("model.safetensors", lambda p: save_file(weights, str(p))),
                        ("config.json", lambda p: p.write_text(json.dumps(config, indent=1) + "\n"))):
        temporary = folder / (name + ".partial")
        write(temporary)
        temporary.replace(folder / name)


def load_codec(folder: str | Path) -> Any:
    """Read what :func:`save_codec` wrote.

    Raises:
        CheckpointError: if files are missing or damaged.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(str(folder / "model.safetensors"))
    except FileNotFoundError as error:
        raise CheckpointError(f"no codec in {folder} ({Path(str(error.filename)).name} is missing); "
                              "run stage=encode") from error
    except Exception as error:
        raise CheckpointError(f"the codec in {folder} cannot be read: {error}; run stage=encode again") from error
    return codec_from_state(config, weights)
