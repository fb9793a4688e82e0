"""Files from others are data: nothing in a checkpoint, a shard, a model folder or a configuration is ever run."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

from callbacks import checkpoint_files as files
from callbacks.stored_weights import newest_weights
from datamodules.clip_reader import iterate_shard
from datamodules.shards import sha256_of
from pipelines.config.compose import Layers, compose
from pipelines.config.errors import ConfigError
from pipelines.config.grammar import parse
from streamchar.codecs.store import codec_from_state
from streamchar.diffusion.config import DiffusionConfig
from streamchar.errors import CheckpointError
from streamchar.hub.model_spec import ModelSpec
from streamchar.orchestrator.config import OrchestratorConfig
from tests import tiny_models as tiny


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))],
                         ids=["torch", "pickle"])
def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path, write) -> None:
    loot = tmp_path / "loot"
    part = files.begin(tmp_path / "checkpoints", 3)
    write({"global_step": 3, "module": Bomb(loot)}, part / files.STATE)
    entry = {"size": (part / files.STATE).stat().st_size, "sha256": sha256_of(part / files.STATE)}
    files.finish(part, {"step": 3, "files": {files.STATE: entry}})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        newest_weights(tmp_path / "checkpoints", "teacher")
    assert not loot.exists()
    pickle.loads(pickle.dumps(Bomb(loot)))
    assert loot.exists(), "the bomb must be a real one"


def test_a_marker_cannot_name_files_outside_of_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    part = files.begin(tmp_path / "checkpoints", 1)
    files.finish(part, {"step": 1, "files": {"../../secret": {"size": 1, "sha256": sha256_of(tmp_path / "secret")}}})
    with pytest.raises(CheckpointError, match="outside"):
        files.verify(part.with_suffix(""))


def test_members_of_a_shard_cannot_leave_its_folder(tmp_path: Path) -> None:
    shard = tmp_path / "shards" / "a-train-00000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for name in ("../../x", "/etc/y"):
            for extension, data in (("json", json.dumps({"text": "bin", "words": [], "fps": 25}).encode()),
                                    ("mp4", b"no film")):
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("z.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    keys = {sample.key for sample in iterate_shard(shard)}
    assert sorted(tmp_path.rglob("*")) == before
    assert keys == {"x", "y"}


def test_a_configuration_names_no_classes(tmp_path: Path) -> None:
    layers = Layers()
    layers._merge({"denoiser": {"_target_": "os.system", "width": 64}}, "theirs.yaml", "")
    with pytest.raises(ConfigError, match="unknown key denoiser._target_"):
        layers.build()
    with pytest.raises(ConfigError, match="_target_"):
        compose(parse(["preset=tiny", "denoiser._target_=os.system"]))
    with pytest.raises(CheckpointError, match="unknown codec kind 'os.system'"):
        codec_from_state({"kind": "os.system", "settings": {}}, {})


def test_a_language_model_folder_brings_no_code(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(f"import os; os.mkdir({str(tmp_path / 'loot')!r})")
    (tmp_path / "config.json").write_text(json.dumps(
        {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}}))
    spec = ModelSpec(tiny.denoiser().config, OrchestratorConfig(pretrained=str(tmp_path)), tiny.CLOCK, tiny.WINDOW,
                     DiffusionConfig(), 64)
    with pytest.raises(ValueError, match="trust_remote_code"):
        spec.build_orchestrator()
    assert not (tmp_path / "loot").exists()
