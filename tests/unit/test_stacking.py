"""Stacking of arrays to batches: values, zeros where nothing is, and memory that batches never share."""

import pickle

import numpy as np
import pytest
import torch

from datamodules.stacking import SMALL_ROW, Stacking, flags


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("size", [3, SMALL_ROW + 1])
def test_rows_become_float32_and_missing_ones_zeros(dtype, size):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((2, 2 * size)).astype(dtype)[:, ::2] for _ in range(3)]
    batch = Stacking().stack([rows[0], None, rows[2]], (2, size))
    assert batch.dtype == torch.float32 and batch.is_contiguous()
    np.testing.assert_array_equal(batch.numpy(), np.stack([rows[0], 0 * rows[1], rows[2]]).astype(np.float32))
    assert not Stacking().stack([None, None], (2, size)).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_batch_keeps_its_values_when_the_next_ones_are_made(dtype):
    stacking = Stacking()
    first = stacking.stack([np.full((2, 3), 1, dtype)], (2, 3))
    sound, _ = stacking.right_align([(3, [np.full((3, 2), 2, dtype)])], 2)
    larger = stacking.stack([np.full((9, 9), 3, dtype)], (9, 9))  # the memory grows
    again = stacking.stack([np.full((2, 3), 4, dtype)], (2, 3))
    for batch, value in ((first, 1), (sound, 2), (larger, 3), (again, 4)):
        assert (batch == value).all()


def test_the_newest_latent_of_every_group_is_last_and_nothing_old_shows_through():
    stacking, ones = Stacking(), np.ones((3, 1), np.float16)
    stacking.right_align([(3, [9 * ones] * 2), (2, [9 * ones[:2]] * 2)], 1)
    out, mask = stacking.right_align([(3, [ones, ones[:1]]), (2, [2 * ones[:1], ones[:0]])], 1)
    assert out[..., 0].tolist() == [[1, 1, 1, 0, 2], [0, 0, 1, 0, 0]]
    assert mask.tolist() == [[True, True, True, False, True], [False, False, True, False, False]]


def test_it_travels_without_its_memory():
    stacking = Stacking()
    stacking.stack([np.ones(SMALL_ROW, np.float16)], (SMALL_ROW,))
    assert len(pickle.dumps(stacking)) < 200


def test_flags():
    first, second = flags([True, False, True], [False] * 3)
    assert first.tolist() == [True, False, True] and second.tolist() == [False] * 3 and first.dtype == torch.bool
