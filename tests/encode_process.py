"""A whole ``stage=encode`` in a process of its own, that notes which shards it encoded."""

from __future__ import annotations

from pathlib import Path

from datamodules import shard_encoding
from pipelines.config.schema import RunConfig
from pipelines.run_directory import RunDirectory
from pipelines.stages import encode


def encode_noted(cfg: RunConfig, done: Path) -> None:
    """Encode, with a line in ``done`` for every shard."""
    encode_shard = shard_encoding.encode_shard

    def noted(job, on_clip):
        with open(done, "a") as file:
            file.write(f"{job.target.parent.name}/{job.target.name}\n")
        return encode_shard(job, on_clip)

    shard_encoding.encode_shard = noted
    encode.LOOK_AGAIN_S = 0.05
    directory = RunDirectory.of(cfg)
    directory.stage("encode").mkdir(parents=True, exist_ok=True)
    encode.run(cfg, directory)
