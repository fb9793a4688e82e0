"""The job scripts without a cluster: what they hand to srun, and what they make of its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pipelines.config.schema import TRAINING
from tests.slurm.cluster import wait_for

CHECKOUT = Path(__file__).parents[2]
SRUN = """printf '%s\\n' "$@" > "$TOOLS/srun.said"
[ -z "$MAKES" ] || { mkdir -p "$MAKES"; touch "$MAKES/complete.json"; }
exit "${CODE:-0}"
"""
SCONTROL = """echo "$@" >> "$TOOLS/scontrol.said"
case "$1 $2" in
"show hostnames") echo node7 ;;
"show node") echo "   NodeAddr=10.0.0.7 NodeHostName=node7" ;;
"show job") echo "JobState=${STATE:-RUNNING}" ;;
esac
"""
STAGES = ("prepare", "encode", *TRAINING, "evaluate")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Stand-ins that note how they were called; ``srun`` makes a checkpoint where told, and ends with a given code."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, body in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(f"#!/bin/sh\n{body}")
        (folder / name).chmod(0o755)
    (folder / "site.env").write_text(f"STREAMCHAR_ROOT={tmp_path}/runs\nSTREAMCHAR_SHARDS=/data/shards\n"
                                     f'STREAMCHAR_CONTAINER="boxed --nv image.sif"\n')
    return folder


def job(tools: Path, *settings: str, stage: str = "rollout", **environment: str) -> int:
    """Run a job's script as Slurm would; its exit code."""
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "TOOLS": str(tools), "STREAMCHAR_SITE": str(tools / "site.env"),
           "SLURM_SUBMIT_DIR": str(CHECKOUT), "SLURM_JOB_ID": "31", "SLURM_JOB_NODELIST": "node[7-8]", "MAKES": "",
           **environment}
    return subprocess.run(["bash", str(CHECKOUT / f"slurm/{stage}.sbatch"), *settings], env=env, check=False,
                          capture_output=True, timeout=60).returncode


def requeues(tools: Path) -> list[str]:
    return [line for line in (tools / "scontrol.said").read_text().splitlines() if line.startswith("requeue")]


def test_scripts_differ_in_resources_and_stage_alone() -> None:
    bare = set()
    for stage in STAGES:
        text = (CHECKOUT / f"slurm/{stage}.sbatch").read_text().replace(stage, "STAGE")
        text = re.sub(r"^# .* From the checkout's root:$", "", text, flags=re.MULTILINE)
        bare.add(re.sub(r"(--(?:nodes|ntasks-per-node|gpus-per-node|cpus-per-task|time))=\S+", r"\1", text))
        assert len(text.splitlines()) < 25
    assert len(bare) == 1


def test_site_settings_come_first_and_the_command_line_has_the_last_word(tools: Path) -> None:
    assert job(tools, "preset=5b", "name=a%a", "root=/mine", SLURM_ARRAY_JOB_ID="31", SLURM_ARRAY_TASK_ID="2") == 0
    said = (tools / "srun.said").read_text().splitlines()
    assert said[said.index("python3"):] == [
        "python3", "pipelines/run.py", "stage=rollout", f"root={tools.parent}/runs", "data.shards=/data/shards",
        "preset=5b", "name=a2", "root=/mine"]
    assert said[said.index("boxed"):said.index("python3")] == ["boxed", "--nv", "image.sif"]


@pytest.mark.parametrize(("code", "makes", "state", "wanted"), [
    ("1", True, "RUNNING", ["requeue 31"]), ("137", True, "RUNNING", ["requeue 31"]), ("137", False, "RUNNING", []),
    ("137", True, "CANCELLED", []), ("2", True, "RUNNING", []), ("3", True, "RUNNING", [])])
def test_a_crash_is_tried_again_only_after_progress(tools: Path, code: str, makes: bool, state: str,
                                                    wanted: list[str]) -> None:
    checkpoint = tools.parent / "runs/mine/rollout/checkpoints/step_00000002"
    assert job(tools, "preset=5b", "name=mine", CODE=code, STATE=state,
               MAKES=str(checkpoint) if makes else "") == int(code)
    assert requeues(tools) == wanted


@pytest.mark.parametrize("before", ["", "sleep 0.3;"])
def test_the_code_of_a_process_that_ended_at_once_is_not_lost(before: str) -> None:
    script = f"source slurm/environment.sh; (exit 7) & pid=$!; {before} wait_for_end $pid"
    env = {**os.environ, "STREAMCHAR_SITE": "none"}
    done = subprocess.run(["bash", "-c", script], cwd=CHECKOUT, env=env, check=False)
    assert done.returncode == 7


def test_a_signal_while_a_process_ends_leaves_its_code(tmp_path: Path) -> None:
    script = f"""source slurm/environment.sh; trap 'touch {tmp_path}/seen' USR1
        (while [[ ! -e {tmp_path}/seen ]]; do sleep 0.01; done; exit 7) & pid=$!
        (sleep 0.2; kill -USR1 $$) & wait_for_end $pid"""
    env = {**os.environ, "STREAMCHAR_SITE": "none"}
    done = subprocess.run(["bash", "-c", script], cwd=CHECKOUT, env=env, check=False)
    assert done.returncode == 7


SERVER = """#!/bin/sh
touch "$TOOLS/served"
while [ ! -e "$TOOLS/stop" ]; do sleep 0.02; done
exit 5
"""


def test_the_mlflow_server_is_queued_again_before_its_time_is_over(tools: Path) -> None:
    (tools / "bin").mkdir()
    (tools / "bin/python").write_text(SERVER)
    (tools / "bin/python").chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "TOOLS": str(tools), "STREAMCHAR_SITE": "none",
           "STREAMCHAR_VENV": str(tools), "SLURM_SUBMIT_DIR": str(CHECKOUT), "SLURM_JOB_ID": "31"}
    with subprocess.Popen(["bash", str(CHECKOUT / "slurm/mlflow-server.sbatch")], env=env) as server:
        wait_for("the server", (tools / "served").exists, 60)
        server.send_signal(signal.SIGUSR1)
        wait_for("the requeue", (tools / "scontrol.said").exists, 60)
        (tools / "stop").touch()
    assert server.returncode == 5 and requeues(tools) == ["requeue 31"]


def test_a_checkpoint_of_an_earlier_start_is_no_progress(tools: Path) -> None:
    checkpoint = tools.parent / "runs/5b/rollout/checkpoints/step_00000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete.json").touch()
    os.utime(checkpoint / "complete.json", (1.7e9, 1.7e9))
    assert job(tools, "preset=5b", CODE="1") == 1
    assert requeues(tools) == []


def test_an_array_member_asks_for_itself_alone(tools: Path) -> None:
    assert job(tools, "name=m", CODE="9", MAKES=str(tools.parent / "runs/m/rollout/checkpoints/step_00000004"),
               SLURM_ARRAY_JOB_ID="31", SLURM_ARRAY_TASK_ID="5") == 9
    assert requeues(tools) == ["requeue 31_5"]


def test_a_member_of_a_sweep_has_settings_of_its_own(tools: Path) -> None:
    members = tools.parent / "members"
    members.mkdir()
    (members / "1").write_text("dmd.critic.lr=0.0002\ndmd.generator.betas=[0.0, 0.9]\n")
    assert job(tools, "name=m-%a", f"members={members}", "preset=tiny", stage="dmd", SLURM_ARRAY_JOB_ID="31",
               SLURM_ARRAY_TASK_ID="1") == 0
    said = (tools / "srun.said").read_text().splitlines()
    assert said[-4:] == ["name=m-1", "preset=tiny", "dmd.critic.lr=0.0002", "dmd.generator.betas=[0.0, 0.9]"]
    assert job(tools, "name=m", f"members={members}") != 0  # no array, no member


PYTHON = """case "$1" in
pipelines/sweep.py) echo "dmd s 3 $TOOLS" ;;
*) echo "$*" >> "$TOOLS/python.said"
    case "$*" in *name=s-"$FAILS"*) exit "$CODE" ;; esac ;;
esac
"""


@pytest.mark.parametrize(("fails", "code", "ran", "wanted"), [
    ("none", 0, [0, 1, 2], 0), ("1", 1, [0, 1, 2], 1), ("1", 3, [0, 1], 3)])
def test_a_sweep_without_slurm_runs_its_members_in_turn(tmp_path: Path, fails: str, code: int, ran: list[int],
                                                        wanted: int) -> None:
    for folder in ("bin", "members", "path"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin/python").write_text(f"#!/bin/sh\n{PYTHON}")
    (tmp_path / "bin/python").chmod(0o755)
    (tmp_path / "path/dirname").symlink_to(shutil.which("dirname") or "")  # all that it needs, and no sbatch
    for number in range(3):
        (tmp_path / f"members/{number}").write_text(f"dmd.critic.lr={number}\n")
    done = subprocess.run(
        [shutil.which("bash") or "", str(CHECKOUT / "slurm/sweep.sh"), "any.yaml", "preset=tiny", "name=mine"],
        env={"PATH": str(tmp_path / "path"), "TOOLS": str(tmp_path), "STREAMCHAR_VENV": str(tmp_path), "FAILS": fails,
             "CODE": str(code), "STREAMCHAR_SITE": "none"}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == wanted, done.stderr
    assert (tmp_path / "python.said").read_text().splitlines() == [
        f"pipelines/run.py stage=dmd preset=tiny name=s-{i} dmd.critic.lr={i}" for i in ran]
    assert ("failed: s-1" in done.stderr) == (wanted == 1)
