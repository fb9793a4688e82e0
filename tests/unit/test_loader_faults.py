"""What goes wrong around the loader: unequal shards over ranks, more workers than shards, a worker that is killed."""

import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
import torch

from datamodules.batches import Cursor, Share, Source, TrainBatches
from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.latent_shards import LatentStore
from datamodules.order import GlobalOrder
from datamodules.worker_loss import WatchedLoader
from streamchar.orchestrator.text import SpelledWords
from streamchar.types import tensor_map
from tests.latent_fakes import CLOCK, WINDOW, write_store


def loader(folder, workers=0, rank=0, world=1, consumed=0):
    store = LatentStore(folder, CLOCK)
    items = ItemComposer(store, CLOCK, WINDOW, SpelledWords(), DataConfig(), seed=4)
    collate = ChunkCollate(CLOCK, WINDOW, 2, store.index.video, items.units.width)
    batches = TrainBatches(Source(items.item, collate), Cursor(consumed), Share(4, rank, world))
    return WatchedLoader(batches, workers, rank)


def stream(folder, **options):
    return iter(loader(folder, **options))


def take(batches, count):
    return [next(batches) for _ in range(count)]


def test_unequal_shards_on_three_ranks_give_all_of_them_equally_much(tmp_path):
    write_store(tmp_path, clips=8, per_shard=5)  # shards of 5 and 3 clips
    ranks = [take(stream(tmp_path, rank=r, world=3), 6) for r in range(3)]
    positions = sorted(p for batches in ranks for b in batches for p in b.index.tolist())
    assert positions == list(range(6 * 4 * 3))
    epoch = [k for batches in ranks for b in batches for p, k in zip(b.index.tolist(), b.keys, strict=True) if p < 24]
    assert {k: epoch.count(k) for k in epoch} == {f"clip{n:03d}": 3 for n in range(8)}  # 4 s: three chunks each


def test_more_workers_than_shards(tmp_path):
    write_store(tmp_path, clips=4, per_shard=4)
    alone, shared = take(stream(tmp_path), 5), take(stream(tmp_path, workers=3), 5)
    for a, b in zip(alone, shared, strict=True):
        assert a.keys == b.keys and torch.equal(a.target.video, b.target.video)


def lose_a_worker(folder, told):
    """In a process of its own: torch tells a worker's end from a signal handler, at any moment."""
    watched = loader(folder, workers=2, rank=3, world=4)
    batches = iter(watched)
    try:
        take(batches, 3)
        os.kill(watched.workers[1].pid, signal.SIGKILL)
        take(batches, 100)
    except Exception as error:
        told.write_text(f"{watched.workers[1].pid} {watched.lost_worker(error) or error}")


def test_a_killed_worker_is_named_and_nothing_is_lost(tmp_path):
    write_store(tmp_path / "latents", clips=8)
    process = multiprocessing.get_context("fork").Process(target=lose_a_worker,
                                                          args=(tmp_path / "latents", tmp_path / "told"))
    process.start()
    process.join()
    pid, told = (tmp_path / "told").read_text().split(" ", 1)
    assert told.startswith(f"loader worker 1 of 2 (pid {pid}) of rank 3 was killed by SIGKILL; the machine was ")
    assert "lower data.num_workers" in told and told.endswith("goes on from the newest checkpoint")
    whole = [b.index.tolist() for b in take(stream(tmp_path / "latents"), 8)]
    assert [b.index.tolist() for b in take(stream(tmp_path / "latents", consumed=12), 5)] == whole[3:]


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(),
                                   RuntimeError("received 0 items of ancdata"),
                                   RuntimeError("DataLoader worker (pid(s) {pid}) exited unexpectedly"),
                                   RuntimeError("DataLoader worker (pid {pid}) is killed by signal: Killed. ")])
def test_every_way_in_which_a_death_is_met_names_the_worker(tmp_path, error):
    watched = loader(write_store(tmp_path), rank=1)
    watched.workers = [multiprocessing.get_context("fork").Process(target=signal.pause) for _ in range(2)]
    for worker in watched.workers:
        worker.start()
    os.kill(watched.workers[0].pid, signal.SIGBUS)
    met = type(error)(*(a.format(pid=watched.workers[0].pid) if isinstance(a, str) else a for a in error.args))
    told = watched.lost_worker(met)
    watched.workers[1].kill()
    assert f"loader worker 0 of 2 (pid {watched.workers[0].pid}) of rank 1 was killed by SIGBUS; shared" in str(told)
    assert watched.lost_worker(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_a_store_travels_to_another_process_without_its_table(tmp_path):
    store = LatentStore(write_store(tmp_path), CLOCK)
    assert store.usable(store.clips[5])
    sent = pickle.dumps(store)
    assert b"clip005" not in sent
    arrived = pickle.loads(sent)
    np.testing.assert_array_equal(arrived.clips[5].audio(1), store.clips[5].audio(1))


def test_large_sets_are_shuffled_in_windows_that_do_not_depend_on_one_another():
    bounds, visits = np.arange(41) * 1000, np.full(40_000, 100)  # 4 million visits
    order = GlobalOrder(bounds, visits, seed=1)
    assert order.windowed and order.window == 10
    late = [order.clip(p) for p in range(3_500_000, 3_500_050)]
    assert late == [GlobalOrder(bounds, visits, seed=1).clip(p) for p in range(3_500_000, 3_500_050)]
    shards = {order.clip(p) // 1000 for p in range(0, 1_000_000, 997)}
    assert len(shards) == 10  # one window
    seen = np.bincount(np.concatenate([order._shuffled(0, w) for w in range(4)]), minlength=40_000)
    assert (seen == 100).all()


def test_a_batch_from_a_worker_is_the_batch(tmp_path):
    write_store(tmp_path, clips=8)
    for one, other in zip(take(stream(tmp_path), 6), take(stream(tmp_path, workers=2), 6), strict=True):
        assert type(one) is type(other) and one.keys == other.keys
        for a, b in zip(tensors_of(one), tensors_of(other), strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
            assert b.is_shared() and not a.is_shared()


def tensors_of(batch) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    tensor_map(batch, lambda t: found.append(t) or t)
    return found
