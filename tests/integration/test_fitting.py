"""A training stage as a whole, on a small stand-in: resume, failing saves, figures, samples, data that end."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from callbacks import checkpoint_files as files
from callbacks.metrics_file import read_rows
from streamchar.errors import CheckpointError, InputError, StreamCharError
from tests.fake_stage import FakeData, FakeModule, train


def folder(root):
    return root / "run" / "teacher"


def state(root):
    return files.load(files.newest_complete(folder(root) / "checkpoints"))


def test_resumed_in_the_middle_equals_undisturbed(tmp_path):
    complete, whole = train(tmp_path / "whole", 9)
    assert complete and whole.seen == list(range(18))
    train(tmp_path / "parts", 4)
    complete, resumed = train(tmp_path / "parts", 9)
    assert complete and resumed.seen == list(range(8, 18))
    one, two = state(tmp_path / "whole"), state(tmp_path / "parts")
    for name, value in one["module"]["weights"].items():
        assert torch.equal(value, two["module"]["weights"][name]), name
    assert torch.equal(one["ema"]["student"]["weights"]["weight"], two["ema"]["student"]["weights"]["weight"])
    assert one["global_step"] == two["global_step"] == 9
    assert whole.generator_updates == resumed.generator_updates == 3
    rows = [[{k: v for k, v in row.items() if k.startswith(("train/", "eval/"))} | {"step": row["step"]}
             for row in read_rows(folder(root) / "metrics.jsonl")] for root in (tmp_path / "whole", tmp_path / "parts")]
    assert [row["step"] for row in rows[1]] == list(range(10))
    assert [r for r in rows[0] if r["step"] != 4] == [r for r in rows[1] if r["step"] != 4]  # 4 was an end: validated


def test_steps_count_iterations_and_cadences_land_where_written(tmp_path):
    _, module = train(tmp_path, 7, val_every=3, log_every=2)
    assert module.iteration == 7
    assert sorted(set(module.validated)) == [0, 3, 6, 7]
    rows = {row["step"]: row for row in read_rows(folder(tmp_path) / "metrics.jsonl")}
    assert [s for s, row in rows.items() if "train/loss" in row] == [2, 4, 6, 7]  # and the last
    assert [s for s, row in rows.items() if "eval/loss" in row] == [0, 3, 6, 7]
    assert rows[6]["train/seen"] == 10  # the sixth iteration saw samples 10 and 11


def test_rows_are_on_the_disk_before_a_checkpoint_is_complete(tmp_path, monkeypatch):
    seen = []

    def sync(logger):
        newest = files.newest_complete(folder(tmp_path) / "checkpoints")
        seen.append((read_rows(logger.path)[-1]["step"], files.step_of(newest) if newest else None))

    monkeypatch.setattr("callbacks.metrics_file.MetricsFile.sync", sync)
    train(tmp_path, 4)
    assert seen == [(2, None), (4, 2), (4, 4)]


def test_what_a_checkpoint_holds(tmp_path):
    train(tmp_path, 5)
    kept = files.folders(folder(tmp_path) / "checkpoints")
    assert [files.step_of(p) for p in kept] == [4, 5]
    saved = state(tmp_path)
    assert {name.split(".")[0] for name in saved["module"]["weights"]} == {"student", "critic"}
    assert saved["about"]["config"] == "seed: 0\n"
    assert set(saved["module"]["optimizers"]) == {"student", "critic"} and saved["FakeData"] == {"consumed": 10}


def test_every_nth_and_the_best_are_kept_beside_the_newest(tmp_path):
    options = {"ckpt_every": 1, "val_every": 2, "keep_last": 1, "keep_every": 3}
    train(tmp_path, 8, best="eval/loss", **options)
    losses = {row["step"]: row["eval/loss"] for row in read_rows(folder(tmp_path) / "metrics.jsonl")
              if row.get("eval/loss") is not None and row["step"]}
    least = min(losses, key=lambda step: (losses[step], -step))
    kept = files.folders(folder(tmp_path) / "checkpoints")
    assert [files.step_of(p) for p in kept] == sorted({3, 6, 8, least}) and least in losses
    assert files.read_marker(kept[-1])["figures"] == {"eval/loss": pytest.approx(losses[8])}
    train(tmp_path, 9, best="eval/loss", best_is="largest", **options)
    most = max(losses, key=lambda step: losses[step] if step in (3, 6, 8, least) else float("-inf"))
    assert {3, 6, 9} <= {files.step_of(p) for p in files.folders(folder(tmp_path) / "checkpoints")} <= {3, 6, 9, most}


def test_a_figure_that_the_stage_does_not_have_is_named_before_training(tmp_path):
    with pytest.raises(InputError, match="trainer.best=eval/los is no held-out figure.*it has eval/loss"):
        train(tmp_path, 4, best="eval/los")


def test_memories_of_ranks_and_validation_streams_are_restored(tmp_path):
    _, first = train(tmp_path, 4)
    _, second = train(tmp_path, 6)
    assert second.extra == 6
    assert float(first.memory.chunk) == 4  # two validations of two batches
    assert float(second.memory.chunk) == 6  # goes on; one more validation at its end


def test_full_disk_in_the_middle_leaves_the_last_good_one(tmp_path, monkeypatch, caplog):
    write = files._HashingFile.write

    def full(self, data):
        if "step_00000004" in str(getattr(self.file, "name", "")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(files._HashingFile, "write", full)
    complete, module = train(tmp_path, 6, keep_last=9)
    assert complete and module.iteration == 6
    assert [files.step_of(p) for p in files.folders(folder(tmp_path) / "checkpoints")] == [2, 6]
    assert "step 4 could not be saved" in caplog.text and "last good one is step_00000002" in caplog.text
    assert not list((folder(tmp_path) / "checkpoints").glob("*.part"))


def test_full_disk_at_the_end_is_an_error_and_nothing_is_lost(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    train(tmp_path, 4)
    with monkeypatch.context() as patch:
        patch.setattr(files._HashingFile, "write", full)
        with pytest.raises(CheckpointError, match="step 7 could not be saved.*last good one is step_00000004"):
            train(tmp_path, 7)
    complete, module = train(tmp_path, 7)
    assert complete and module.seen == list(range(8, 14))


def test_damaged_newest_checkpoint_is_skipped(tmp_path):
    train(tmp_path, 6)
    newest = files.newest_complete(folder(tmp_path) / "checkpoints")
    (newest / files.STATE).write_bytes(b"damaged")
    complete, module = train(tmp_path, 8)
    assert complete and module.seen == list(range(8, 16))
    assert [row["step"] for row in read_rows(folder(tmp_path) / "metrics.jsonl")] == list(range(9))


def test_data_that_end_are_no_finished_stage(tmp_path):
    with pytest.raises(StreamCharError, match="ended at step 3 in place of 6"):
        train(tmp_path, 6, data=FakeData(limit=6))


def test_time_limit_saves_and_goes_on_later(tmp_path):
    complete, module = train(tmp_path, 50, module=FakeModule(pause=0.01), max_minutes=1e-6, ckpt_every=0)
    assert not complete and module.iteration == 1
    complete, module = train(tmp_path, 3)
    assert complete and module.seen == [2, 3, 4, 5]


def test_probe_and_samples_leave_training_untouched(tmp_path):
    train(tmp_path / "plain", 5)
    train(tmp_path / "watched", 5, callbacks={"samples_every": -1, "probe_every": 2, "pointer": True})
    one, two = state(tmp_path / "plain"), state(tmp_path / "watched")
    assert all(torch.equal(v, two["module"]["weights"][k]) for k, v in one["module"]["weights"].items())
    rows = {row["step"]: row for row in read_rows(folder(tmp_path / "watched") / "metrics.jsonl")}
    assert [s for s, row in rows.items() if "perf/real_time_factor" in row] == [2, 4, 5]
    assert {"perf/first_chunk_s", "perf/probe_s", "perf/chunk_budget_s"} <= set(rows[4])
    assert rows[0]["pointer/constant_rate_error"] == 2.0
    samples = sorted(p.name for p in (folder(tmp_path / "watched") / "samples").iterdir())
    assert samples == [*(f"playback_step_0000000{step}.svg" for step in (2, 4, 5)), "pointer_step_00000000.png",
                       "pointer_step_00000005.png", "step_00000005_s_1.mp4"]


def test_sample_has_sound_and_panels_side_by_side(tmp_path):
    import av

    train(tmp_path, 2, callbacks={"samples_every": -1})
    with av.open(str(next((folder(tmp_path) / "samples").glob("*.mp4")))) as clip:
        frames = [f.to_ndarray(format="rgb24") for f in clip.decode(video=0)]
        assert len(clip.streams.audio) == 1
    assert len(frames) == 25 and frames[0].shape == (32, 96, 3)
    assert frames[-1][:, :40].mean() < 30 and frames[-1][:, 56:].mean() > 225  # still reference, brightened student


def in_two_processes(root, steps):
    command = [sys.executable, "-m", "tests.fake_stage", str(root), f"steps={steps}", "devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_two_processes_agree_and_resume(tmp_path):
    in_two_processes(tmp_path, 3)
    assert in_two_processes(tmp_path, 5).count('"seen": [6, 7, 8, 9]') == 2
    newest = files.newest_complete(folder(tmp_path) / "checkpoints")
    assert {p.name for p in newest.glob("rank_*")} == {"rank_00000.pt", "rank_00001.pt"}
    assert [row["step"] for row in read_rows(folder(tmp_path) / "metrics.jsonl")] == list(range(6))
