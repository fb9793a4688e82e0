"""Being asked to stop: a run ends at a step's boundary, saved, and the next process goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from callbacks import checkpoint_files as files
from callbacks import stop_request
from callbacks.metrics_file import read_rows
from callbacks.preemption import requeue
from tests.fake_stage import FakeModule, train

CHECKOUT = Path(__file__).parents[2]


def run(root, *options, send=None, env=None, at="step 3/"):
    """Train the stand-in in its own process, sending a signal once it has said ``at``; (exit code, output)."""
    command = [sys.executable, "-u", "-m", "tests.fake_stage", str(root), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CHECKOUT,
                               env={**os.environ, **(env or {})},
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    guard = threading.Timer(120, process.kill)
    guard.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if send is not None and at in line:
            process.send_signal(send)
            send = None
    code = process.wait()
    guard.cancel()
    return code, "".join(lines)


def result(output):
    return json.loads(output.split("RESULT ")[1].splitlines()[0])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_signal_saves_this_very_step_and_nothing_is_lost(tmp_path, number):
    code, output = run(tmp_path, "steps=400", "pause=0.05", "ckpt_every=0", send=number)
    assert code == 0, output
    first = result(output)
    assert first["complete"] is False and f"{number.name}: stopping at step" in output
    newest = files.newest_complete(tmp_path / "run" / "teacher" / "checkpoints")
    assert files.step_of(newest) == len(first["seen"]) // 2 < 400
    code, output = run(tmp_path, f"steps={files.step_of(newest) + 2}")
    assert code == 0 and result(output)["complete"] is True
    after = result(output)["seen"]
    assert first["seen"] + after == list(range(len(first["seen"]) + 4))


def test_ctrl_c_saves_and_ends_as_an_interruption(tmp_path):
    code, output = run(tmp_path, "steps=400", "pause=0.05", "ckpt_every=0", send=signal.SIGINT)
    assert code in (-signal.SIGINT, 130) and "KeyboardInterrupt" in output
    newest = files.newest_complete(tmp_path / "run" / "teacher" / "checkpoints")
    assert newest is not None and 3 <= files.step_of(newest) < 400


class Signalled(FakeModule):
    """Is sent USR1 while its first checkpoint is being taken, or in the step ``at``."""

    def __init__(self, at=None):
        super().__init__()
        self.at = at

    def checkpoint_state_dict(self, keep=True):
        if self.at is None and self.iteration == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().checkpoint_state_dict(keep)

    def training_step(self, batch, number):
        super().training_step(batch, number)
        if self.iteration == self.at:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_signal_during_a_save_leaves_two_whole_checkpoints(tmp_path):
    complete, first = train(tmp_path, 9, module=Signalled())
    assert not complete and first.seen == list(range(6))
    checkpoints = files.folders(tmp_path / "run" / "teacher" / "checkpoints")
    assert [files.verify(path)["step"] for path in checkpoints] == [2, 3]
    complete, second = train(tmp_path, 9)
    assert complete and first.seen + second.seen == list(range(18))


def test_signal_in_the_last_step_does_not_undo_the_stage(tmp_path):
    complete, module = train(tmp_path, 4, module=Signalled(at=4))
    assert complete and module.validated == [0, 0, 4, 4]


def test_signal_before_training_is_obeyed_after_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(stop_request.early, "signal", signal.SIGUSR1)
    complete, module = train(tmp_path, 9, ckpt_every=0)
    assert not complete and module.seen == [0, 1]
    assert files.newest_complete(tmp_path / "run" / "teacher" / "checkpoints").name == "step_00000001"


def test_validation_left_out_by_a_signal_is_made_up_for(tmp_path):
    _, whole = train(tmp_path / "whole", 8, val_every=2, tracking="off")
    _, first = train(tmp_path / "parts", 8, val_every=2, module=Signalled(at=4))
    complete, second = train(tmp_path / "parts", 8, val_every=2)
    assert complete and first.validated == [0, 0, 2, 2] and second.validated == [4, 4, 6, 6, 8, 8]
    assert torch.equal(whole.memory.chunk, second.memory.chunk)
    figures = [[(row["step"], row["eval/loss"]) for row in read_rows(tmp_path / name / "run/teacher/metrics.jsonl")
                if "eval/loss" in row] for name in ("whole", "parts")]
    assert figures[0] == figures[1] and [step for step, _ in figures[0]] == [0, 2, 4, 6, 8]


def test_a_hanging_step_leaves_its_stack_and_ends(tmp_path):
    code, output = run(tmp_path, "steps=400", "hang=3", "hang_minutes=0.05")
    assert code == 1 and "no progress for 3 s: stacks are in" in output
    stack = (tmp_path / "run/teacher/stacks/rank_00000.txt").read_text()
    assert "in training_step" in stack and "in wait" in stack
    newest = files.newest_complete(tmp_path / "run" / "teacher" / "checkpoints")
    assert files.step_of(newest) == 2
    for steps in (4, 6):  # the lives after
        assert train(tmp_path, steps)[0]
    assert [p.name for p in (tmp_path / "run/teacher/stacks").iterdir()] == ["rank_00000.before.txt"]
    assert (tmp_path / "run/teacher/stacks/rank_00000.before.txt").read_text() == stack


def test_a_suspended_run_goes_on_when_it_is_continued(tmp_path):
    """After longer than the watchdog allows, timer and all (3 + .6 + 3 s), by what Ctrl-Z sends."""
    process = subprocess.Popen([sys.executable, "-u", "-m", "tests.fake_stage", str(tmp_path), "steps=60", "pause=0.05",
                                "hang_minutes=0.05"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               cwd=CHECKOUT)
    guard = threading.Timer(300, process.kill)
    guard.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "step 3/" in line:
            process.send_signal(signal.SIGTSTP)
            time.sleep(7.5)
            assert "T" in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            process.send_signal(signal.SIGCONT)
    code = process.wait()
    guard.cancel()
    assert code == 0 and result("".join(lines))["complete"] is True, "".join(lines)


def fake_scontrol(folder, state):
    """A ``scontrol`` that knows one job and notes what it was asked."""
    tool = folder / "scontrol"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n[ "$1" = show ] && echo "JobState={state}"\nexit 0\n')
    tool.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}


def test_job_is_queued_again_after_the_checkpoint(tmp_path):
    env = fake_scontrol(tmp_path, "RUNNING")
    code, output = run(tmp_path / "root", "steps=400", "pause=0.05", "ckpt_every=0", send=signal.SIGUSR1, env=env)
    assert code == 0 and "job 77 is queued again" in output
    assert (tmp_path / "asked").read_text().splitlines() == ["show job 77", "requeue 77"]
    assert files.newest_complete(tmp_path / "root" / "run" / "teacher" / "checkpoints") is not None


def test_cancelled_job_is_not_queued_again(tmp_path, monkeypatch):
    env = fake_scontrol(tmp_path, "CANCELLED")
    monkeypatch.setenv("PATH", env["PATH"])
    assert requeue(env) is False
    assert (tmp_path / "asked").read_text().splitlines() == ["show job 77"]
    assert requeue({}) is False


@pytest.mark.parametrize(("said", "queued", "told"), [
    ("Job is pending execution for job 77", True, "job 77 is queued again already"),
    ("Requested operation is presently disabled", False, "submit it anew to go on")])
def test_a_requeue_that_slurm_refuses(tmp_path, monkeypatch, caplog, said, queued, told):
    env = fake_scontrol(tmp_path, "RUNNING")
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\n[ "$1" = requeue ] || exit 0\necho "{said}" >&2\nexit 1\n')
    monkeypatch.setenv("PATH", env["PATH"])
    with caplog.at_level("INFO"):
        assert requeue(env) is queued
    assert told in caplog.text


def test_a_member_of_an_array_is_queued_again_alone(tmp_path, monkeypatch):
    env = fake_scontrol(tmp_path, "RUNNING") | {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "4"}
    monkeypatch.setenv("PATH", env["PATH"])
    assert requeue(env) is True
    assert (tmp_path / "asked").read_text().splitlines() == ["show job 77_4", "requeue 77_4"]
