"""A real Slurm on this machine: controller, nodes of one core each and authentication, all in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "squeue", "scancel")
CONFIG = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,defer_batch=0
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=debug Nodes=node[1-{count}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=300
PartitionName=urgent Nodes=node[1-{count}] MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if lacking:
        return f"{', '.join(lacking)} missing: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


def wait_for(what: str, look: Callable[[], T], seconds: float = 400.0, pause: float = 0.05) -> T:
    """Look until something true is seen, ``pause`` seconds between two looks.

    Raises:
        TimeoutError: naming ``what`` was awaited.
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)
    return seen


class Cluster:
    """Starts in :meth:`start`; the commands of Slurm reach it by ``env``."""

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        self.folder, self.count = folder, nodes
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"),
                    "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def start(self) -> None:
        """Start all daemons, and wait until every node is idle."""
        (self.folder / "state").mkdir(parents=True)
        self._write_config()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.run("munged", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}",
                 f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                 f"--seed-file={self.folder}/munge.seed")
        self.run("slurmctld")
        for number in range(1, self.count + 1):
            self.start_node(f"node{number}")
        wait_for("idle nodes", lambda: self.states() == ["idle"] * self.count)

    def states(self, *nodes: str) -> list[str]:
        """What the nodes are (not given: all of them): ``idle``, ``allocated``, ``down``, ..."""
        chosen = ("-n", ",".join(nodes)) if nodes else ()
        return self.run("sinfo", "-h", "-N", "-p", "debug", *chosen, "-o", "%T").split()

    def start_node(self, name: str) -> None:
        """Start one node's daemon."""
        (self.folder / f"spool.{name}").mkdir(exist_ok=True)
        self.run("slurmd", "-N", name)

    def stop(self) -> None:
        """Cancel what runs, wait until it is gone, and end all daemons."""
        self.run("scancel", "--user=root", check=False)
        with suppress(TimeoutError):
            wait_for("the end of all jobs", lambda: not self.run("squeue", "-h", check=False).strip(), 60)
        for path in [*self.folder.glob("slurmd.*.pid"), *self.folder.glob("slurmctld.pid"),
                     *self.folder.glob("munged.pid")]:
            end_process(int(path.read_text()), signal.SIGTERM)

    def run(self, *command: str, check: bool = True, env: dict[str, str] | None = None,
            cwd: Path | None = None) -> str:
        """A command's output."""
        done = subprocess.run(command, env={**self.env, **(env or {})}, cwd=cwd, text=True, capture_output=True,
                              timeout=120, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def job(self, job: str) -> dict[str, str]:
        """What Slurm says of a job: ``JobState``, ``ExitCode``, ``Restarts``, ``Reason``, ..."""
        told = self.run("scontrol", "show", "job", "--oneliner", job).splitlines()[0]
        return dict(pair.split("=", 1) for pair in told.split(" ") if "=" in pair)

    def state(self, job: str) -> str:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ..."""
        return self.job(job)["JobState"]

    def release(self, job: str) -> None:
        """Start a requeued job soon: Slurm would let it wait for two minutes.

        Not at once: a node takes a job that it has ended within the same second for the ended one, and refuses it.
        """
        wait_for(f"job {job} to be queued again", lambda: self.state(job) == "PENDING")
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+3")

    def wait_end(self, job: str, seconds: float = 300.0) -> dict[str, str]:
        """Wait for a job's end; what Slurm says of it then."""
        wait_for(f"the end of job {job}", lambda: self.state(job) not in
                 ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"), seconds)
        return self.job(job)

    def _write_config(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        nodes = "\n".join(f"NodeName=node{i} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port + i} CPUs=1 "
                          "RealMemory=4000 State=UNKNOWN" for i in range(1, self.count + 1))
        (self.folder / "slurm.conf").write_text(
            CONFIG.format(port=port, folder=self.folder, nodes=nodes, count=self.count))


def end_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
