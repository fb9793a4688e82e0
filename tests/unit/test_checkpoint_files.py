"""Checkpoints on disk are complete and verified, or they are not there."""

import json
import os
import pickle

import pytest
import torch

from callbacks import checkpoint_files as files
from callbacks.stored_weights import newest_weights
from streamchar.errors import CheckpointError


def save(folder, step, value=0.0):
    part = files.begin(folder, step)
    state = {"global_step": step, "module": {"weights": {"student.w": torch.full((4,), value)}},
             "ema": {"student": {"updates": 1, "weights": {"w": torch.full((4,), value + 0.5)}}}}
    entries = {files.STATE: files.write_file(part / files.STATE, state)}
    return files.finish(part, {"step": step, "files": entries})


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
    files.prune(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    assert files.newest_complete(tmp_path) == good


def test_prune_keeps_the_newest(tmp_path):
    for step in (2, 4, 6, 8):
        save(tmp_path, step)
    files.prune(tmp_path, 2)
    assert [files.step_of(p) for p in files.folders(tmp_path)] == [6, 8]


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
