"""``data.latents``: latents that another run has made become this run's, without a copy of the shards.

The run gets the codecs, and for each split the list of shards and the clips' table; the tars stay where they are and
are mapped there, or come through the cache when they are needed.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from datamodules.atomic_file import part_of, write_atomic
from datamodules.clip_table import TABLE_NAME
from datamodules.latent_format import INDEX_NAME, LatentIndex
from datamodules.latent_shards import LatentStore
from datamodules.remote import GoneError, fetch, is_remote, join
from pipelines.config.schema import RunConfig
from streamchar.codecs.store import load_codec
from streamchar.errors import DataError

SPLITS = ("train", "val")
CODECS = ("video", "audio")


def adopt(cfg: RunConfig, folder: Path, console: Console) -> None:
    """Make ``folder`` (the run's ``encode``) stand for the encode folder that ``cfg.data.latents`` names.

    Raises:
        DataError: if it is none, cannot be read, or does not fit the run's clock and picture size.
    """
    source = _source(cfg)
    for kind in CODECS:
        for name in ("model.safetensors", "config.json"):
            _copy(source, f"codecs/{kind}/{name}", folder)
    codecs = {kind: load_codec(folder / "codecs" / kind) for kind in CODECS}
    clock = cfg.clock.chunk_clock(codecs["audio"].latent_rate, codecs["audio"].sample_rate)
    prints: dict[str, str | None] = {kind: codec.fingerprint for kind, codec in codecs.items()}
    for split in SPLITS:
        target = folder / "latents" / split
        for name in (TABLE_NAME, INDEX_NAME):
            _copy(source, f"latents/{split}/{name}", folder)
        index = LatentIndex.from_json((target / INDEX_NAME).read_bytes(), str(target / INDEX_NAME))
        index.base = index.base or _below(source, f"latents/{split}")
        write_atomic(target / INDEX_NAME, index.to_json())
        if index.size != cfg.data.size:
            raise DataError(f"data.size={cfg.data.size}, but the latents at {source} are of pictures of {index.size}: "
                            f"set data.size={index.size}")
        store = LatentStore(target, clock, prints, cfg.data.max_bad_share)
        console.print(f"{split}: {len(store.clips)} clips in {len(index.shards)} shards at {index.base}",
                      soft_wrap=True)


def adopted_prints(cfg: RunConfig) -> dict[str, str]:
    """Fingerprints of the codecs of the encode folder that ``cfg.data.latents`` names.

    Raises:
        DataError: if it is none or cannot be read.
    """
    with TemporaryDirectory() as folder:
        name = f"latents/train/{INDEX_NAME}"
        _copy(_source(cfg), name, Path(folder))
        index = LatentIndex.from_json((Path(folder) / name).read_bytes(), f"{cfg.data.latents}/{name}")
    return {"video": index.video_codec, "audio": index.audio_codec}


def _source(cfg: RunConfig) -> str:
    source = str(cfg.data.latents)
    return source if is_remote(source) else str(Path(source).expanduser().resolve())


def _below(source: str, name: str) -> str:
    return source.replace("{}", f"{name}/{{}}") if source.startswith("pipe:") else join(source, name)


def _copy(source: str, name: str, folder: Path) -> None:
    """One small file into the same place below ``folder``."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    address = join(source, name)
    try:
        if is_remote(source):
            part = part_of(target)
            try:
                fetch(address, part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        else:
            write_atomic(target, Path(address).read_bytes())
    except (OSError, GoneError) as error:
        raise DataError(f"data.latents={source} is no encode folder that can be used: {error}; expected codecs/ and "
                        f"latents/ with {TABLE_NAME}, as stage=encode makes them (run it there again if its latents "
                        f"are of an earlier version)") from error
