"""One folder with ``model.safetensors`` and ``config.json`` holds a whole character: models, codecs, geometry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from streamchar.codecs.store import codec_from_state, codec_state
from streamchar.errors import CheckpointError
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.stored_types import restored, stored
from streamchar.rollout.character import Character

FORMAT = 2
PROMPT = ("prompt/face.png", "prompt/voice.wav")
"""Picture and voice that an export may carry."""


def export_character(character: Character, spec: ModelSpec, folder: str | Path, card: str = "",
                     dtype: str = "float32") -> Path:
    """Write ``model.safetensors``, ``config.json`` and, if given, the model card ``README.md``; returns the folder.

    Each file is written beside its place and renamed, config.json last. ``dtype``: how the models' weights are stored,
    one of ``stored_types.KINDS``; codecs keep their own type, which their fingerprint covers.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = stored({f"{name}.{k}": v for name, model in (("denoiser", character.denoiser), (
        "orchestrator", character.orchestrator)) for k, v in model.state_dict().items()}, dtype)
    codecs = {}
    for name, codec in (("video_codec", character.video_codec), ("audio_codec", character.audio_codec)):
        codecs[name], weights = codec_state(codec)
        tensors |= {f"{name}.{k}": v.contiguous() for k, v in weights.items()}
    config = {"format": FORMAT, "few_step": character.few_step, "spec": spec.to_dict(), "codecs": codecs}
    _replace(folder / "model.safetensors", lambda p: save_file(tensors, str(p)))
    if card:
        _replace(folder / "README.md", lambda p: p.write_text(card, encoding="utf-8"))
    _replace(folder / "config.json", lambda p: p.write_text(json.dumps(config, indent=1) + "\n"))
    return folder


def from_pretrained(folder: str | Path) -> Character:
    """Load an exported character on the CPU, in eval mode, in float32.

    Raises:
        CheckpointError: if files are missing, damaged, or of another version or architecture.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = restored(load_file(str(folder / "model.safetensors")))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no exported model: {Path(str(error.filename)).name} is missing; "
                              "stage=export out=DIR writes one") from error
    except Exception as error:
        raise CheckpointError(f"the exported model in {folder} cannot be read ({error}); export it again") from error
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{folder}/config.json has format {config.get('format')!r}, this version reads {FORMAT}")
    spec = ModelSpec.from_dict(config["spec"])
    denoiser, orchestrator = spec.build_denoiser(), spec.build_orchestrator(load_llm=False)
    load_weights(denoiser, _under(tensors, "denoiser"), str(folder))
    load_weights(orchestrator, _under(tensors, "orchestrator"), str(folder))
    codecs = {name: codec_from_state(c, _under(tensors, name)) for name, c in config["codecs"].items()}
    return Character(denoiser.eval(), orchestrator.eval(), spec.clock, spec.window, spec.units(), spec.diffusion,
                     spec.size, codecs["video_codec"], codecs["audio_codec"], bool(config["few_step"]))


def load_weights(module: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Strict loading whose error names the first tensors that do not fit and where they come from."""
    own = module.state_dict()
    wrong = [f"{k}: {tuple(weights[k].shape)} in the file, {tuple(own[k].shape)} here"
             for k in own if k in weights and own[k].shape != weights[k].shape]
    wrong += [f"{k}: missing in the file" for k in own if k not in weights]
    wrong += [f"{k}: unknown to this model" for k in weights if k not in own]
    if wrong:
        more = f" (and {len(wrong) - 4} more)" if len(wrong) > 4 else ""
        raise CheckpointError(f"the weights of {origin} are of another architecture: {'; '.join(wrong[:4])}{more}; "
                              "use the config.yaml they were trained with, or, if an older version made them, "
                              "train under another name=")
    module.load_state_dict(weights)


def _under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1:]: v for k, v in tensors.items() if k.startswith(name + ".")}


def _replace(path: Path, write: Any) -> None:
    part = path.with_name("." + path.name + ".part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
