# What the three jobs share; sourced by the .sbatch files, from the checkout's root.
# shellcheck shell=bash
set -euo pipefail

# Site settings: copy site.env.example to site.env (not in git) and fill it in.
if [[ -f slurm/site.env ]]; then
    # shellcheck source=/dev/null
    source slurm/site.env
fi

STREAMCHAR_VENV="${STREAMCHAR_VENV:-.venv}"
if [[ ! -x "$STREAMCHAR_VENV/bin/python" ]]; then
    echo "no environment at $STREAMCHAR_VENV: run 'make env' on the login node, or set STREAMCHAR_VENV" >&2
    exit 2
fi

# One master for all ranks of the job; the port is a function of the job, so that neighbours do not collide.
MASTER_ADDR="$(scontrol show hostnames "${SLURM_JOB_NODELIST:?run this with sbatch}" | head -n 1)"
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
export PYTHONUNBUFFERED=1

# run_stage STAGE [key=value ...]: one process per task; devices and nodes are read from SLURM_*. `exec` leaves srun as
# the batch script's process, so that it passes the signals on; the run's folder is a function of its name, so a
# requeued job goes on where the newest complete checkpoint stands.
run_stage() {
    local stage="$1"
    shift
    exec srun --kill-on-bad-exit=1 "$STREAMCHAR_VENV/bin/python" pipelines/run.py "stage=$stage" "$@"
}
