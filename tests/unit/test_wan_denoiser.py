"""A denoiser started from a Wan transformer gives its outputs; what does not fit is refused before anything is read."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.config.compose import compose
from pipelines.config.errors import ConfigError
from pipelines.config.grammar import parse
from streamchar.clock import ChunkClock
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Context, Denoiser
from streamchar.denoiser.wan_size import misfits, wan_sizes
from streamchar.errors import CheckpointError, InputError
from streamchar.hub.wan import load_wan, names_in_wan, stored_shape
from streamchar.types import Latents
from streamchar.window import WindowConfig

diffusers = pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")

CLOCK = ChunkClock(24.0, 33, 25.0, 16000)
SIZES = DenoiserConfig(video_channels=6, audio_channels=5, patch=2, width=48, layers=2, heads=3, ffn=80, audio_ffn=80,
                       time_dim=32, caption_dim=20)
WAN = {"patch_size": (1, 2, 2), "num_attention_heads": 3, "attention_head_dim": 16, "in_channels": 6,
       "out_channels": 6, "text_dim": 20, "freq_dim": 32, "ffn_dim": 80, "num_layers": 2}
TI2V_5B = {"patch_size": (1, 2, 2), "num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 48,
           "out_channels": 48, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 14336, "num_layers": 30,
           "cross_attn_norm": True, "eps": 1e-6, "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024}


@pytest.fixture(scope="module")
def wan() -> torch.nn.Module:
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(**WAN).eval()
    for p in model.parameters():  # norms and biases too, so that every one of them matters
        torch.nn.init.normal_(p, 0.5 if p.ndim == 1 else 0.0, 0.3)
    return model


@pytest.fixture(scope="module")
def folder(wan: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wan")
    wan.save_pretrained(path / "transformer", max_shard_size="100KB")
    assert len(list((path / "transformer").glob("*.safetensors"))) > 1
    return path


def video_only(model: Denoiser, video: Tensor, sigma: Tensor, caption: Tensor | None) -> Tensor:
    """The denoiser without sound and without clean groups: what is left is Wan."""
    batch, heads = len(video), model.config.heads
    none = torch.zeros(batch, 0, heads, model.config.width // heads)
    context = Context([(none, none)] * model.config.layers, model.encode_caption(caption, batch))
    noisy = Latents(video, torch.zeros(batch, 0, model.config.audio_channels))
    return model(noisy, sigma, torch.zeros(batch, 0, model.config.width), context, torch.zeros(batch, 0)).video


@torch.no_grad()
@pytest.mark.parametrize("sizes, captioned", [(SIZES, True), (SIZES, False),
                                              (replace(SIZES, caption_dim=0, caption_bias=True), False)])
def test_video_alone_is_what_wan_says(wan, folder: Path, sizes: DenoiserConfig, captioned: bool) -> None:
    model = Denoiser(sizes, CLOCK, WindowConfig())
    load_wan(model, folder)
    g = torch.Generator().manual_seed(1)
    video, caption = torch.randn(2, 6, 9, 4, 6, generator=g), torch.randn(2, 7, 20, generator=g)
    for t in (0.0, 20.0, 500.0, 937.5, 1000.0):
        theirs = wan(video, torch.tensor([t, t]), caption if captioned else torch.zeros(2, 512, 20)).sample
        ours = video_only(model, video, torch.tensor([t, t]) / 1000, caption if captioned else None)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert theirs.std() > 0.1


@torch.no_grad()
def test_each_sample_has_its_own_noise_level(wan, folder: Path) -> None:
    model = Denoiser(SIZES, CLOCK, WindowConfig())
    load_wan(model, folder / "transformer")
    video, caption = torch.randn(2, 6, 9, 4, 4), torch.randn(2, 3, 20)
    theirs = wan(video, torch.tensor([100.0, 900.0]), caption).sample
    ours = video_only(model, video, torch.tensor([0.1, 0.9]), caption)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_report_names_what_is_used_left_and_new(wan, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = load_wan(Denoiser(SIZES, CLOCK, WindowConfig()), folder)
    assert report.unused == [] and len(report.used) == len(wan.state_dict())
    assert {name.split(".")[0] for name in report.new} == {
        "audio_in", "audio_out", "group_embedding", "null_latent", "null_condition"}
    assert "unused: none; new: null_condition, " in caplog.text
    narrow = load_wan(Denoiser(replace(SIZES, caption_dim=0, audio_ffn=16), CLOCK, WindowConfig()), folder)
    assert str(narrow).count("\n") == 0 and "blocks.*.attn2, blocks.*.norm2" in str(narrow)
    assert "condition_embedder.text_embedder" in str(narrow) and "blocks.*.ffn_audio" in str(narrow)


def test_an_audio_expert_as_wide_begins_as_the_video_expert(folder: Path) -> None:
    model = Denoiser(SIZES, CLOCK, WindowConfig())
    load_wan(model, folder)
    for block in model.blocks:
        assert torch.equal(block.ffn_audio.up.weight, block.ffn_video.up.weight)
        assert block.ffn_audio.down.weight.data_ptr() != block.ffn_video.down.weight.data_ptr()


def test_other_sizes_are_refused_with_the_line_that_fits(folder: Path) -> None:
    model = Denoiser(replace(SIZES, width=96, layers=1), CLOCK, WindowConfig())
    before = model.video_in.weight.clone()
    with pytest.raises(CheckpointError, match=r"width is 48 there, 96 here; layers is 2 there, 1 here.*denoiser: "
                                              r"\{patch: 2, width: 48, layers: 2, heads: 3, ffn: 80.*6 channels"):
        load_wan(model, folder)
    assert torch.equal(model.video_in.weight, before)


def test_folders_that_are_no_wan_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(InputError, match="holds a model AutoencoderKLWan; expected a diffusers folder of WanTrans"):
        wan_sizes(tmp_path)
    with pytest.raises(InputError, match="holds no config.json"):
        wan_sizes(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", **WAN, "in_channels": 9}))
    with pytest.raises(InputError, match="given a picture"):
        wan_sizes(tmp_path)


def test_a_folder_with_a_shard_missing_or_cut_is_refused(wan, tmp_path: Path) -> None:
    wan.save_pretrained(tmp_path, max_shard_size="100KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match=f"{shard.name} cannot be read"):
        load_wan(Denoiser(SIZES, CLOCK, WindowConfig()), tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shard.name}"):
        load_wan(Denoiser(SIZES, CLOCK, WindowConfig()), tmp_path)


@pytest.mark.parametrize("preset, changed", [
    ("5b", {}), ("1b", {"num_attention_heads": 12, "ffn_dim": 8960, "in_channels": 16, "out_channels": 16})])
def test_production_presets_have_the_shapes_of_the_published_models(preset: str, changed: dict, tmp_path: Path) -> None:
    settings = {**TI2V_5B, **changed}
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", **settings}))
    config = replace(compose(parse([f"preset={preset}", "--dry-run"])).denoiser, video_channels=settings["in_channels"])
    with torch.device("meta"):
        theirs = {k: tuple(v.shape) for k, v in diffusers.WanTransformer3DModel(**settings).state_dict().items()}
        for sizes in (config, replace(config, caption_dim=4096, caption_bias=False)):
            assert misfits(sizes, tmp_path) == []
            model = Denoiser(sizes, CLOCK, WindowConfig())
            own, names = model.state_dict(), names_in_wan(model)
            assert {k: tuple(own[k].shape) for k in names} == {k: stored_shape(k, theirs[v]) for k, v in names.items()}
    assert set(names.values()) == set(theirs)  # with cross-attention nothing of theirs is left out


def test_a_run_is_refused_before_anything_is_built(folder: Path) -> None:
    for given, told in ((folder, "width is 48 there, 64 here"), (folder / "nowhere", "holds no config.json")):
        with pytest.raises(ConfigError, match=told):
            compose(parse(["preset=tiny", "stage=teacher", f"denoiser.pretrained={given}"]))
