"""Trainer and resume: refused options, processes under Slurm, changed settings."""

import pytest
import torch

from callbacks import checkpoint_files as files
from pipelines.resume import differences, find_start
from pipelines.trainer import precision_of, processes, strategy_of
from pipelines.trainer_config import TrainerConfig
from streamchar.errors import InputError


def test_defaults_are_fine_and_mistakes_are_told():
    assert TrainerConfig().problems("trainer") == []
    wrong = TrainerConfig(precision="16", strategy="fsdp1", resume="yes", log_every=0, devices=-1)
    told = " ".join(wrong.problems("trainer"))
    for part in ("trainer.precision='16'", "trainer.strategy='fsdp1'", "trainer.resume", "log_every", "devices"):
        assert part in told


def test_the_best_is_judged_where_checkpoints_are():
    assert TrainerConfig(best="eval/loss", val_every=100, ckpt_every=50).problems("trainer") == []
    told = " ".join(TrainerConfig(best="eval/loss", best_is="max", val_every=50, ckpt_every=100).problems("trainer"))
    assert "val_every=50 must be a multiple of ckpt_every=100" in told and "trainer.best_is='max'" in told


def test_strategy_single_is_one_process():
    with pytest.raises(InputError, match="one process"):
        strategy_of(TrainerConfig(strategy="single"), 2, "cpu")


def test_options_that_need_another_strategy_are_refused():
    with pytest.raises(InputError, match="shard_ranks=2 needs strategy=fsdp2, got ddp"):
        strategy_of(TrainerConfig(strategy="ddp", shard_ranks=2), 4, "cpu")
    with pytest.raises(InputError, match="shard_ranks=3 does not divide the 4"):
        strategy_of(TrainerConfig(strategy="fsdp2", shard_ranks=3), 4, "cpu")
    with pytest.raises(InputError, match="frozen=offload needs strategy=fsdp2 or deepspeed"):
        strategy_of(TrainerConfig(frozen="offload"), 1, "cpu")
    with pytest.raises(InputError, match="zero_stage=4 must be one of 1, 2, 3"):
        strategy_of(TrainerConfig(strategy="deepspeed", zero_stage=4), 2, "cpu")


def test_processes_come_from_slurm():
    slurm = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "2"}
    assert processes(TrainerConfig(), slurm) == (4, 2)
    assert processes(TrainerConfig(), {"SLURM_NTASKS": "8"}) == (1, 1)
    with pytest.raises(InputError, match="srun started 8"):
        processes(TrainerConfig(devices=2, nodes=2), slurm)


def complete(folder, step, settings):
    part = files.begin(folder, step)
    entry = files.write_file(part / files.STATE, {"global_step": step})
    return files.finish(part, {"files": {files.STATE: entry}, "settings": settings})


def test_changed_settings_are_refused_by_name(tmp_path):
    folder = tmp_path / "checkpoints"
    path = complete(folder, 4, {"seed": 0, "data.size": 96})
    assert find_start(folder, "auto", {"seed": 0, "data.size": 96}, {}) == path
    with pytest.raises(InputError, match="seed: 0 -> 1") as error:
        find_start(folder, "auto", {"seed": 1, "data.size": 96}, {})
    assert "resume=never" in str(error.value) and "data.size" not in str(error.value)
    assert find_start(folder, "force", {"seed": 1}, {}) == path


def test_a_fresh_start_puts_all_of_the_life_before_aside(tmp_path):
    folder = tmp_path / "checkpoints"
    complete(folder, 4, {})
    (tmp_path / "samples").mkdir()
    for name in ("samples/step_00000004_a.mp4", "metrics.jsonl", "config_diff_00000002.txt"):
        (tmp_path / name).write_text("before")
    assert find_start(folder, "never", {}, {}) is None
    aside = tmp_path / "checkpoints.before-1"
    assert (aside / "step_00000004" / files.MARKER).exists() and (aside / "samples/step_00000004_a.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == [aside.name]
    assert files.newest_complete(aside) == aside / "step_00000004"


def test_a_requeued_job_goes_on_although_it_was_told_never(tmp_path):
    path = complete(tmp_path, 4, {})
    assert find_start(tmp_path, "never", {}, {"SLURM_RESTART_COUNT": "1"}) == path


def test_damaged_newer_checkpoints_never_count_again(tmp_path):
    good, bad = complete(tmp_path, 4, {}), complete(tmp_path, 6, {})
    (bad / files.STATE).write_bytes(b"")
    assert find_start(tmp_path, "auto", {}, {}) == good
    assert (tmp_path / "step_00000006.damaged-1").is_dir()
    assert files.folders(tmp_path) == [good]


def test_differences_tell_both_sides():
    assert differences({"a": 1, "b": 2}, {"a": 1, "c": 3}) == ["b: 2 -> (not there)", "c: (not there) -> 3"]


def test_a_cpu_without_fast_bfloat16_trains_in_float32(monkeypatch):
    asked = TrainerConfig(precision="bf16-mixed")
    for fast, found in ((False, "32"), (True, "bf16-mixed")):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda fast=fast: fast)
        assert precision_of(asked, "cpu") == found
        assert precision_of(asked, "gpu") == "bf16-mixed" and precision_of(TrainerConfig(), "cpu") == "32"
