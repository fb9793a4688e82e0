"""One folder with ``model.safetensors`` and ``config.json`` holds a whole character: models, codecs, geometry."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from streamchar.codecs.store import codec_from_state, codec_state
from streamchar.denoiser.model import Denoiser
from streamchar.errors import CheckpointError
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.stored_types import restored, stored
from streamchar.orchestrator.model import Orchestrator
from streamchar.orchestrator.text import TokenizerUnits
from streamchar.rollout.character import Character

FORMAT = 2
WEIGHTS = "model.safetensors"
LLM = "llm"
"""Folder of a pretrained language model's config and tokenizer."""
PROMPT = ("prompt/face.png", "prompt/voice.wav")
"""Picture and voice that an export may carry."""


def export_character(character: Character, spec: ModelSpec, folder: str | Path, card: str = "",
                     dtype: str = "float32") -> Path:
    """Write ``model.safetensors``, ``config.json`` and, if given, the model card ``README.md``; returns the folder.

    Each file is written beside its place and renamed, config.json last. Where the orchestrator is a pretrained language
    model, ``llm/`` holds its config and, if text is in its tokens, its tokenizer. ``dtype``: how models are stored, one
    of ``stored_types.KINDS``; codecs keep their own type, which their fingerprint covers.
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
    plan = spec.to_dict()
    if spec.orchestrator.pretrained:
        _write_llm(character, folder / LLM)
        plan["orchestrator"]["pretrained"] = LLM
    config = {"format": FORMAT, "few_step": character.few_step, "spec": plan, "codecs": codecs}
    _replace(folder / WEIGHTS, lambda p: save_file(tensors, str(p)))
    if card:
        _replace(folder / "README.md", lambda p: p.write_text(card, encoding="utf-8"))
    _replace(folder / "config.json", lambda p: p.write_text(json.dumps(config, indent=1) + "\n"))
    return folder


class Exported:
    """The folder of an exported character, read part by part: its plan at once, weights when they are asked for.

    Raises:
        CheckpointError: if files are missing, damaged, or of another version or architecture.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in ("config.json", WEIGHTS):
            if not (self.folder / name).is_file():
                raise CheckpointError(f"{folder} is no exported model: {name} is missing; stage=export out=DIR writes "
                                      "one")
        try:
            config = json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}/config.json cannot be read ({error}); export it again") from error
        if config.get("format") != FORMAT:
            raise CheckpointError(f"{folder}/config.json has format {config.get('format')!r}, this version reads "
                                  f"{FORMAT}")
        self.spec = ModelSpec.from_dict(config["spec"])
        if self.spec.orchestrator.pretrained == LLM:
            self.spec.orchestrator.pretrained = str(self.folder.absolute() / LLM)
            if not (self.folder / LLM / "config.json").is_file():
                raise CheckpointError(f"{folder} lacks {LLM}/ with its language model's config; copy it whole")
        self.few_step, self.codecs = bool(config["few_step"]), dict(config["codecs"])

    def denoiser(self) -> Denoiser:
        """The denoiser, in float32 on the CPU."""
        model = self.spec.build_denoiser()
        load_weights(model, self.weights("denoiser"), str(self.folder))
        return model

    def orchestrator(self) -> Orchestrator:
        """The orchestrator, in float32 on the CPU."""
        model = self.spec.build_orchestrator(load_llm=False)
        load_weights(model, self.weights("orchestrator"), str(self.folder))
        return model

    def codec(self, kind: str) -> Any:
        """The codec of ``video`` or ``audio``."""
        name = f"{kind}_codec"
        return codec_from_state(self.codecs[name], self.weights(name))

    def weights(self, part: str) -> dict[str, Tensor]:
        """The tensors of ``denoiser``, ``orchestrator``, ``video_codec`` or ``audio_codec``."""
        from safetensors import safe_open

        try:
            with safe_open(str(self.folder / WEIGHTS), framework="pt") as file:
                return restored({name.removeprefix(part + "."): file.get_tensor(name)
                                 for name in file.keys() if name.startswith(part + ".")})  # noqa: SIM118
        except Exception as error:
            raise CheckpointError(f"{self.folder / WEIGHTS} cannot be read ({error}); export it again") from error

    def digest(self) -> str:
        """Hash of all weights, in a few letters: the same export in another place is the same."""
        state = (self.folder / WEIGHTS).stat()
        return _digest(str(self.folder.absolute()), state.st_size, state.st_mtime_ns)


@cache
def _digest(folder: str, size: int, changed: int) -> str:
    """``size`` and ``changed`` only tell files of one name apart: a large file is not read twice."""
    with (Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def from_pretrained(folder: str | Path) -> Character:
    """Load an exported character on the CPU, in eval mode, in float32.

    Raises:
        CheckpointError: if files are missing, damaged, or of another version or architecture.
    """
    export = Exported(folder)
    spec = export.spec
    return Character(export.denoiser().eval(), export.orchestrator().eval(), spec.clock, spec.window, spec.units(),
                     spec.diffusion, spec.size, export.codec("video"), export.codec("audio"), export.few_step)


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


def _write_llm(character: Character, folder: Path) -> None:
    """Config and tokenizer of the orchestrator's language model, as Hugging Face's loaders read them."""
    part = folder.with_name("." + folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        character.orchestrator.llm.config.save_pretrained(str(part))
        if isinstance(character.units, TokenizerUnits):
            character.units.tokenizer.save_pretrained(str(part))
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(path: Path, write: Any) -> None:
    part = path.with_name("." + path.name + ".part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
