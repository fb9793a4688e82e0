"""One global order: ranks, workers and micro-batches only partition it."""

import pickle
from collections import Counter

import numpy as np
import pytest

from datamodules.batches import Cursor, Share, Source, TrainBatches
from datamodules.draws import Draws
from datamodules.order import GlobalOrder, batch_positions, rng_at

BOUNDS = [0, 3, 5, 9]
VISITS = [1, 2, 1, 3, 1, 1, 0, 2, 1]


def test_an_epoch_visits_every_clip_as_often_as_asked():
    order = GlobalOrder(BOUNDS, VISITS, seed=3)
    for epoch in range(3):
        seen = Counter(order.clip(epoch * order.epoch_length + i) for i in range(order.epoch_length))
        assert [seen[c] for c in range(9)] == VISITS


def test_epochs_differ_and_the_order_is_a_pure_function_of_seed_and_position():
    order, again, other = (GlobalOrder(BOUNDS, VISITS, seed=s) for s in (3, 3, 4))
    n = order.epoch_length
    sequence = [order.clip(i) for i in range(3 * n)]
    assert sequence[:n] != sequence[n:2 * n]
    assert [again.clip(i) for i in reversed(range(3 * n))] == sequence[::-1]
    assert [other.clip(i) for i in range(3 * n)] != sequence


def test_a_window_keeps_shards_together():
    order = GlobalOrder(BOUNDS, VISITS, seed=1, window=1)
    runs = [int(np.searchsorted(BOUNDS, order.clip(i), "right")) for i in range(order.epoch_length)]
    changes = sum(a != b for a, b in zip(runs, runs[1:], strict=False))
    assert changes == len(BOUNDS) - 2


def test_ranks_and_batches_partition_the_positions():
    one = [p for b in range(6) for p in batch_positions(40, b, 8, 0, 1)]
    two = [p for b in range(6) for r in range(2) for p in batch_positions(40, b, 4, r, 2)]
    small = [p for b in range(24) for p in batch_positions(40, b, 2, 0, 1)]
    assert sorted(two) == one == small == list(range(40, 88))
    assert list(batch_positions(40, 0, 4, 1, 2)) == [41, 43, 45, 47]


def test_random_numbers_depend_on_seed_position_and_stream_alone():
    draw = rng_at(5, 1234).random(4)
    assert np.array_equal(draw, rng_at(5, 1234).random(4))
    for other in (rng_at(5, 1235), rng_at(6, 1234), rng_at(5, 1234, 1)):
        assert not np.array_equal(draw, other.random(4))


@pytest.mark.parametrize("together", [1, 12, 64])
def test_another_number_of_processes_neither_repeats_nor_loses_a_sample(together):
    seen, cursor = [], Cursor()
    for world, steps in ((1, 3), (2, 2), (3, 1), (1, 2)):
        shares = [Share(4, rank, world) for rank in range(world)]
        ranks = [iter(TrainBatches(Source(int, list, together), cursor, share)) for share in shares]
        for _ in range(steps):
            got = [position for rank in ranks for position in next(rank)]
            assert sorted(got) == list(range(len(seen), len(seen) + 4 * world))
            seen += got
        cursor = Cursor(len(seen))  # what a checkpoint keeps
    assert sorted(seen) == list(range(4 * (3 + 4 + 3 + 2)))


def test_draws_are_the_numbers_of_a_new_generator():
    """Whatever was drawn before, wherever 32-bit halves of a word are left over, and after a journey as a pickle."""
    kept = Draws(5)
    for position in [*range(400), 1 << 40]:
        fresh = rng_at(5, position)
        drawn = (kept if position % 2 else pickle.loads(pickle.dumps(kept))).at(position)
        for step in range(5):
            count = (1, 2, 45, 3_000_000_000, 1 << 32, 1 << 40)[(position + step) % 6]
            assert drawn.random() == fresh.random()
            assert drawn.integers(count) == fresh.integers(count)
            assert drawn.integers(7, 7 + count) == fresh.integers(7, 7 + count)
            if step % 2:
                assert drawn.standard_normal() == fresh.standard_normal()
    with pytest.raises(ValueError, match="low"):
        kept.integers(3, 3)
