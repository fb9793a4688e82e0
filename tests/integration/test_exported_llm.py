"""An export whose orchestrator is another project's language model stands alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from pipelines.config.schema import RunConfig
from pipelines.origins import orchestrator_plan
from streamchar.errors import CheckpointError
from streamchar.hub import export_character, from_pretrained
from streamchar.hub.model_spec import ModelSpec
from streamchar.orchestrator.config import OrchestratorConfig
from tests import tiny_models as tiny
from tests.integration.test_roles import codecs


def language_model(folder: Path) -> Path:
    """A folder in Hugging Face's layout, weights in bfloat16 as they are published."""
    pieces = ["<|endoftext|>", "Ġ", "r", "e", "d", "Ġr", "Ġre", "Ġred"]
    words = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)},
                                 [("Ġ", "r"), ("Ġr", "e"), ("Ġre", "d")]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=pieces[0]).save_pretrained(str(folder))
    sizes = Qwen2Config(vocab_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                        num_key_value_heads=2)
    Qwen2Model(sizes).to(torch.bfloat16).save_pretrained(str(folder))
    return folder


def test_it_loads_without_the_language_models_folder(tmp_path: Path) -> None:
    llm = language_model(tmp_path / "qwen")
    who = tiny.character()
    plan = OrchestratorConfig(pretrained=str(llm), tokenizer="pretrained", pointer_dim=16)
    spec = ModelSpec(who.denoiser.config, plan, who.clock, who.window, who.diffusion, who.size)
    made = replace(who, orchestrator=spec.build_orchestrator(), units=spec.units(), **codecs())
    export_character(made, spec, tmp_path / "model")
    shutil.rmtree(llm)
    assert str(tmp_path) not in (tmp_path / "model/config.json").read_text()
    shutil.move(tmp_path / "model", tmp_path / "moved")
    loaded = from_pretrained(tmp_path / "moved")
    own, stored = made.orchestrator.state_dict(), loaded.orchestrator.state_dict()
    assert own.keys() == stored.keys() and all(torch.equal(own[k], stored[k]) for k in own)
    assert {v.dtype for v in stored.values()} == {torch.float32}
    assert loaded.units.encode("red") == made.units.encode("red") == [[8]]
    run = orchestrator_plan(RunConfig(init=str(tmp_path / "moved")))
    assert run.pretrained == str(tmp_path / "moved/llm")
    again = ModelSpec(spec.denoiser, replace(plan, pretrained=run.pretrained), spec.clock, spec.window, spec.diffusion,
                      spec.size)
    export_character(loaded, again, tmp_path / "moved")  # over itself
    assert from_pretrained(tmp_path / "moved").units.encode("red") == [[8]]
    shutil.rmtree(tmp_path / "moved/llm")
    with pytest.raises(CheckpointError, match="lacks llm/"):
        from_pretrained(tmp_path / "moved")
