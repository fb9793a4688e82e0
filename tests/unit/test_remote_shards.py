"""Shards behind addresses: bad days of the storage, the bounded cache, several workers, a full disk."""

import errno
import importlib.util
import json
import multiprocessing
import os
import signal
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datamodules.clip_reader import iterate_shard
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.latent_format import INDEX_NAME
from datamodules.latent_shards import LatentStore
from datamodules.remote import Expected, GoneError, Retries, StorageError, fetch
from datamodules.shard_cache import ShardCache
from datamodules.shard_writer import ShardWriter
from datamodules.shards import RemoteShard, expand_shards, split_shards
from streamchar.errors import DataError, InputError
from streamchar.orchestrator.text import SpelledWords
from tests.latent_fakes import CLOCK, WINDOW, write_store
from tests.loopback import Loopback, serve

AT_ONCE = Retries(times=4, first_s=0.0, silence_s=0.5)


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "far").mkdir()
    with serve(tmp_path / "far") as server:
        yield server


def put(storage: Loopback, name: str, size: int = 1000) -> bytes:
    body = name.encode() * (size // len(name))
    (storage.folder / name).write_bytes(body)
    return body


def test_a_bad_day_that_passes(storage, tmp_path, caplog):
    body = put(storage, "a.tar")
    storage.failures["a.tar"], storage.cut["a.tar"] = 2, 1
    cache = ShardCache(tmp_path / "cache", retries=AT_ONCE)
    with cache.open(f"{storage.address}/a.tar") as file:
        assert file.read() == body
    assert storage.asked["a.tar"] == 4  # twice 503, once cut off, once whole
    assert "HTTP 503" in caplog.text and "the connection ended after" in caplog.text and "try 3 of 4" in caplog.text
    with cache.open(f"{storage.address}/a.tar") as file:
        assert file.read() == body
    assert storage.asked["a.tar"] == 4


def test_storage_that_is_gone_ends_with_the_remedy(storage, tmp_path):
    put(storage, "a.tar")
    storage.failures["a.tar"] = -1
    with pytest.raises(StorageError, match=r"a.tar cannot be read, tried 4 times.*HTTP 503.*the same command again"):
        ShardCache(tmp_path / "cache", retries=AT_ONCE).open(f"{storage.address}/a.tar")
    closed = f"http://127.0.0.1:{storage.port}/a.tar"
    assert not list((tmp_path / "cache").glob("*.part"))
    with pytest.raises(GoneError, match="HTTP 404.*check the address"):
        ShardCache(tmp_path / "cache", retries=AT_ONCE).open(closed.replace("a.tar", "b.tar"))
    assert storage.asked["b.tar"] == 1  # what will not pass is not tried again


def test_a_closed_port_is_tried_again_and_named(tmp_path, storage):
    address = storage.address
    with serve(tmp_path) as other:
        address = other.address
    with pytest.raises(StorageError, match="Connection refused"):
        fetch(f"{address}/a.tar", tmp_path / "a", retries=AT_ONCE)


def test_other_bytes_than_the_index_says(storage, tmp_path):
    body = put(storage, "a.tar")
    for expected in (Expected(bytes=len(body) + 1), Expected(sha256="0" * 64)):
        with pytest.raises(GoneError, match="the index says .*copy it anew"):
            ShardCache(tmp_path / "cache", retries=AT_ONCE).open(f"{storage.address}/a.tar", expected)


def test_the_cache_keeps_its_bound_and_forgets_what_was_used_longest_ago(storage, tmp_path):
    for name in "abc":
        put(storage, f"{name}.tar", 1000)
    cache = ShardCache(tmp_path / "cache", limit=2500)
    held = cache.open(f"{storage.address}/a.tar")
    for number, name in enumerate("bac"):
        cache.open(f"{storage.address}/{name}.tar").close()
        for path in cache.folder.glob(f"*-{name}.tar"):  # order of use, however coarse the file system's clock
            os.utime(path, ns=(number, number))
    assert sorted(p.name[-5:] for p in cache.folder.glob("*.tar")) == ["a.tar", "c.tar"]
    ShardCache(cache.folder, limit=10).open(f"{storage.address}/b.tar").close()
    assert [p.name[-5:] for p in cache.folder.glob("*.tar")] == ["b.tar"]
    assert held.read() == (storage.folder / "a.tar").read_bytes()  # a reader keeps what is removed
    held.close()


def open_once(folder: Path, url: str, ready, results) -> None:
    ready.wait()
    with ShardCache(folder).open(url) as file:
        results.put(len(file.read()))


def test_workers_of_a_machine_download_once(storage, tmp_path):
    body = put(storage, "a.tar", 100_000)
    fork = multiprocessing.get_context("fork")
    ready, results = fork.Barrier(4), fork.SimpleQueue()
    workers = [fork.Process(target=open_once, args=(tmp_path / "cache", f"{storage.address}/a.tar", ready, results))
               for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [results.get() for _ in workers] == [len(body)] * 4
    for worker in workers:
        worker.join()
    assert storage.asked["a.tar"] == 1


def test_a_worker_killed_while_it_downloads_leaves_no_lock(storage, tmp_path):
    cache, url = tmp_path / "cache", f"{storage.address}/a.tar"
    body = put(storage, "a.tar")
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()

    def stuck() -> None:
        def never(*_: object) -> None:
            begun.set()
            signal.pause()

        import datamodules.shard_cache as module

        module.fetch = never
        ShardCache(cache).open(url)

    worker = fork.Process(target=stuck)
    worker.start()
    assert begun.wait(60)
    worker.kill()
    worker.join()
    with ShardCache(cache).open(url) as file:
        assert file.read() == body


def test_a_full_disk_makes_room_first_and_then_tells(storage, tmp_path, monkeypatch):
    for name in "ab":
        put(storage, f"{name}.tar")
    cache = ShardCache(tmp_path / "cache", retries=AT_ONCE)
    cache.open(f"{storage.address}/a.tar").close()
    full = [1]

    def fsync(_: int) -> None:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("datamodules.remote.os.fsync", fsync)
    cache.open(f"{storage.address}/b.tar").close()
    assert [p.name[-5:] for p in cache.folder.glob("*.tar")] == ["b.tar"]
    full += [1] * 10
    with pytest.raises(InputError, match="No space left.*STREAMCHAR_CACHE"):
        cache.open(f"{storage.address}/a.tar")
    assert not list(cache.folder.glob("*.part"))


def test_commands(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 5000)
    fetch(f"pipe:cat {tmp_path}/a.tar", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"x" * 5000
    with pytest.raises(StorageError, match="the command ended with code 3"):
        fetch("pipe:echo half; exit 3", tmp_path / "got", retries=AT_ONCE)
    with pytest.raises(GoneError, match="no such command"):
        fetch("pipe:no-such-command-anywhere a-train-000.tar", tmp_path / "got")
    with pytest.raises(StorageError, match="the command wrote nothing for 0.1 s"):
        fetch("pipe:tail -f /dev/null", tmp_path / "got", retries=Retries(times=1, silence_s=0.1))


class Bucket(MemoryFileSystem):
    """Objects in memory under s3://."""

    protocol = "s3"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("s3://").lstrip("/")


def test_s3_through_fsspec_or_what_to_install(tmp_path):
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(InputError, match="pip install s3fs"):
            fetch("s3://bucket/a.tar", tmp_path / "got")
    fsspec.register_implementation("s3", Bucket, clobber=True)
    with Bucket().open("s3://bucket/a.tar", "wb") as file:
        file.write(b"held far away")
    fetch("s3://bucket/a.tar", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"held far away"
    with pytest.raises(GoneError, match="FileNotFoundError"):
        fetch("s3://bucket/b.tar", tmp_path / "got")


def test_s3_without_credentials_ends_at_once(monkeypatch, tmp_path):
    class NoCredentialsError(Exception):
        """As botocore's."""

    def refuse(*_: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(fsspec, "open", refuse)
    with pytest.raises(GoneError, match=r"s3://bucket/a.tar: Unable to locate credentials; give credentials"):
        fetch("s3://bucket/a.tar", tmp_path / "got")


def test_names_of_addresses(storage, monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMCHAR_CACHE", str(tmp_path / "cache"))
    found = expand_shards(f"{storage.address}/x-{{train,val}}-{{000..001}}.tar?token=1")
    assert [s.name for s in found] == [f"x-{s}-00{i}.tar" for s in ("train", "val") for i in (0, 1)]
    assert [len(part) for part in split_shards(found)] == [2, 2]
    assert RemoteShard("pipe:aws s3 cp s3://b/x-val-000.tar -").name == "x-val-000.tar"
    rows = [{"file": f"x-train-{i}.tar", "samples": 1, "sha256": "", "seconds": 1.0} for i in range(3)]
    (storage.folder / INDEX_NAME).write_text(json.dumps({"shards": rows}))
    assert [str(s) for s in expand_shards(f"{storage.address}/")] == [
        f"{storage.address}/x-train-{i}.tar" for i in range(3)]
    with pytest.raises(DataError, match="cannot be listed; write a brace list"):
        expand_shards(f"{storage.address}/x-*.tar")
    with pytest.raises(DataError, match=r"gs:// is not read; .*pipe:"):
        expand_shards("gs://bucket/x-{000..001}.tar")


def test_raw_shards_are_read_from_there(storage, monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMCHAR_CACHE", str(tmp_path / "cache"))
    with ShardWriter(storage.folder / "x-train-0.tar") as writer:
        writer.write("a", {"json": b"{}", "wav": b"1"}, 1.0)
    shard, = expand_shards(f"{storage.address}/x-train-0.tar")
    assert [(s.key, s.shard) for s in iterate_shard(shard)] == [("a", f"{storage.address}/x-train-0.tar")]


@pytest.fixture
def remote_store(storage, tmp_path):
    """A folder that has the index of 12 clips in 3 shards; the tars are behind the server."""
    write_store(storage.folder, clips=12)
    near = tmp_path / "near"
    near.mkdir()
    index = json.loads((storage.folder / INDEX_NAME).read_text())
    (near / INDEX_NAME).write_text(json.dumps({**index, "base": storage.address}))
    (near / "clips.safetensors").write_bytes((storage.folder / "clips.safetensors").read_bytes())
    return near


def items_of(store: LatentStore, count: int = 60) -> list:
    composer = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=3)
    return [(i.place.clip.record.key, i.place.chunk, i.audio.tobytes(), i.recent.tobytes())
            for i in map(composer.item, range(count))]


def test_remote_latents_give_the_items_of_local_ones(storage, remote_store, tmp_path):
    far = LatentStore(remote_store, CLOCK, cache=ShardCache(tmp_path / "cache", retries=AT_ONCE))
    assert not storage.asked  # opening reads no shard
    assert items_of(far) == items_of(LatentStore(storage.folder, CLOCK))
    assert all(storage.asked[f"latents-0000{i}.tar"] == 1 for i in range(3))


def test_a_window_that_does_not_fit_the_cache_is_told(storage, remote_store, tmp_path, caplog):
    items_of(LatentStore(remote_store, CLOCK, cache=ShardCache(tmp_path / "cache", limit=10_000)), 5)
    assert "3 shards are shuffled together" in caplog.text and "data.shuffle_shards" in caplog.text


def test_a_missing_remote_shard_is_quarantined_and_nothing_else_lost(storage, remote_store, tmp_path):
    (storage.folder / "latents-00001.tar").unlink()
    store = LatentStore(remote_store, CLOCK, max_bad_share=0.5, cache=ShardCache(tmp_path / "cache", retries=AT_ONCE))
    assert {i[0] for i in items_of(store, 200)} == {f"clip{n:03d}" for n in (0, 1, 2, 3, 8, 9, 10, 11)}
    assert len(store.quarantined) == 4 and all("HTTP 404" in why for why in store.quarantined.values())
    strict = LatentStore(remote_store, CLOCK, cache=ShardCache(tmp_path / "cache", retries=AT_ONCE))
    with pytest.raises(DataError, match="3 of 12 clips.*more than data.max_bad_share=0.2.*HTTP 404"):
        items_of(strict, 200)


def test_latents_whose_storage_is_gone_stop_the_run(storage, remote_store, tmp_path):
    storage.failures["*"] = -1
    store = LatentStore(remote_store, CLOCK, cache=ShardCache(tmp_path / "cache", retries=AT_ONCE))
    with pytest.raises(StorageError, match="HTTP 503.*goes on from its newest checkpoint"):
        items_of(store)
