"""Checkpoints on disk are complete and verified, or they are not there."""

import json
import os
import pickle

import pytest
import torch

from callbacks import checkpoint_files as files
from callbacks.stored_weights import newest_weights
from streamchar.errors import CheckpointError


def save(folder, step, value=0.0, **figures):
    part = files.begin(folder, step)
    state = {"global_step": step, "module": {"weights": {"student.w": torch.full((4,), value)}},
             "ema": {"student": {"updates": 1, "weights": {"w": torch.full((4,), value + 0.5)}}}}
    entries = {files.STATE: files.write_file(part / files.STATE, state)}
    return files.finish(part, {"step": step, "files": entries, "figures": figures})


def test_newest_complete_is_found_and_read(tmp_path):
    save(tmp_path, 2, 1.0)
    newest = save(tmp_path, 10, 3.0)
    assert files.newest_complete(tmp_path) == newest
    assert files.step_of(newest) == 10
    assert torch.equal(newest_weights(tmp_path, "student", "trained")["w"], torch.full((4,), 3.0))
    assert torch.equal(newest_weights(tmp_path, "student")["w"], torch.full((4,), 3.5))


def test_nothing_there(tmp_path):
    assert files.newest_complete(tmp_path / "none") is None
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        newest_weights(tmp_path, "student")


def test_role_that_is_not_there_is_named(tmp_path):
    save(tmp_path, 2)
    with pytest.raises(CheckpointError, match="no role 'critic'; it holds student"):
        newest_weights(tmp_path, "critic")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "marker", "no marker"])
def test_damaged_newest_is_skipped_with_a_message(tmp_path, caplog, damage):
    good, bad = save(tmp_path, 2), save(tmp_path, 4)
    state, marker = bad / files.STATE, bad / files.MARKER
    if damage == "flip":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    elif damage == "cut":
        os.truncate(state, 100)
    elif damage == "remove":
        state.unlink()
    elif damage == "marker":
        marker.write_text("{")
    else:
        marker.unlink()
    assert files.newest_complete(tmp_path) == good
    assert "step_00000004" in caplog.text and "skipped" in caplog.text


def test_a_crash_while_writing_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    good = save(tmp_path, 2)

    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 4)
    assert files.newest_complete(tmp_path) == good
    with monkeypatch.context() as patch:  # renamed, but not yet marked
        patch.setattr(files.json, "dump", crash)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 4)
    assert files.newest_complete(tmp_path) == good
    files.prune(tmp_path, files.Keep())
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    assert files.newest_complete(tmp_path) == good


def test_prune_keeps_the_newest(tmp_path):
    for step in (2, 4, 6, 8):
        save(tmp_path, step)
    files.prune(tmp_path, files.Keep(2))
    assert [files.step_of(p) for p in files.folders(tmp_path)] == [6, 8]


def left(folder, **keep):
    files.prune(folder, files.Keep(**keep))
    return [files.step_of(p) for p in files.folders(folder)]


def test_prune_keeps_every_nth_and_the_best_beside_the_newest(tmp_path):
    for step, loss in ((2, 3.0), (4, 1.0), (6, 2.0), (8, float("nan")), (10, 4.0), (12, None)):
        save(tmp_path, step, **({} if loss is None else {"loss": loss}))
    assert left(tmp_path, last=9, best="loss") == [2, 4, 6, 8, 10, 12]
    assert left(tmp_path, last=1, every=6, best="loss") == [4, 6, 12]
    save(tmp_path, 14, loss=9.0)
    assert left(tmp_path, last=1, best="loss", largest=True) == [14]
    assert left(tmp_path, last=1, every=100, best="other") == [14]


def test_an_equal_newer_checkpoint_is_the_best(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step, loss=float(step > 4))
    assert left(tmp_path, last=1, best="loss") == [4, 6]


@pytest.mark.parametrize("keep", [files.Keep(1), files.Keep(1, every=4), files.Keep(1, best="loss")])
def test_a_crash_while_pruning_leaves_the_newest_and_nothing_half_deleted(tmp_path, monkeypatch, keep):
    newest = [save(tmp_path, step, loss=float(-step)) for step in (2, 3, 5)][-1]

    def crash(path, **_):
        (path / files.STATE).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", crash)
        with pytest.raises(KeyboardInterrupt):
            files.prune(tmp_path, keep)
    assert files.newest_complete(tmp_path) == newest
    for path in files.folders(tmp_path):
        if (path / files.MARKER).exists():
            files.verify(path)
    assert left(tmp_path, last=1) == [5]


def test_marker_tells_sizes_and_hashes(tmp_path):
    path = save(tmp_path, 2)
    entry = json.loads((path / files.MARKER).read_text())["files"][files.STATE]
    assert entry["size"] == (path / files.STATE).stat().st_size
    assert len(entry["sha256"]) == 64


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = save(tmp_path, 2)
    (path / files.STATE).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        files.load(path)
    assert not (tmp_path / "ran").exists()
