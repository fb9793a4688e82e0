"""Being asked to stop: a run ends at a step's boundary, saved, and the next process goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from callbacks import checkpoint_files as files
from callbacks.preemption import requeue

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
