# What all jobs share: site settings, rendezvous, NCCL, and how a stage is started and started again.
# Sourced by the .sbatch files from the checkout's root.
# shellcheck shell=bash
set -euo pipefail

STREAMCHAR_SITE="${STREAMCHAR_SITE:-slurm/site.env}"
if [[ -f "$STREAMCHAR_SITE" ]]; then
    # shellcheck source=/dev/null
    source "$STREAMCHAR_SITE"
fi

# python [ARGUMENT ...]: the environment's interpreter, inside the site's container where there is one.
read -ra STREAMCHAR_PREFIX <<<"${STREAMCHAR_CONTAINER:-}"
python() {
    local program
    program="$(interpreter)"
    command "${STREAMCHAR_PREFIX[@]}" "$program" "$@"
}

interpreter() {
    if [[ -n "${STREAMCHAR_CONTAINER:-}" ]]; then
        echo "${STREAMCHAR_PYTHON:-python3}"
    elif [[ -x "${STREAMCHAR_VENV:-.venv}/bin/python" ]]; then
        echo "${STREAMCHAR_VENV:-.venv}/bin/python"
    else
        echo "no environment at ${STREAMCHAR_VENV:-.venv}: run 'make env' on the login node, or set STREAMCHAR_VENV or" \
            "STREAMCHAR_CONTAINER in slurm/site.env" >&2
        return 2
    fi
}

# rendezvous: one master for all ranks, at the address that Slurm itself uses for the first node; the port is a function
# of the job, so that neighbours do not collide.
rendezvous() {
    local first
    first="$(scontrol show hostnames "${SLURM_JOB_NODELIST:?run this with sbatch}" | head -n 1)"
    MASTER_ADDR="$(scontrol show node "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)"
    MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
    export MASTER_ADDR MASTER_PORT
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}" PYTHONUNBUFFERED=1
    # An error of one rank ends the others' collectives, and what NCCL did last is dumped with a hang's stacks.
    export TORCH_NCCL_ASYNC_ERROR_HANDLING="${TORCH_NCCL_ASYNC_ERROR_HANDLING:-1}"
    export TORCH_FR_BUFFER_SIZE="${TORCH_FR_BUFFER_SIZE:-2000}"
    export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
}

# run_stage STAGE [key=value ...]: %a in a value is the number of the array's member, and members=FOLDER gives it
# settings of its own, those in FOLDER/NUMBER, one a line. Site settings come first, so that the command line has the
# last word.
run_stage() {
    local stage="$1" given=() kept=() swept=() argument
    shift
    for argument in "${@//%a/${SLURM_ARRAY_TASK_ID:-}}"; do
        case "$argument" in
        members=*) mapfile -t swept <"${argument#members=}/${SLURM_ARRAY_TASK_ID:?members= is for job arrays}" ;;
        *) kept+=("$argument") ;;
        esac
    done
    set -- "${kept[@]}" "${swept[@]}"
    [[ -z "${STREAMCHAR_ROOT:-}" ]] || given+=("root=$STREAMCHAR_ROOT")
    [[ -z "${STREAMCHAR_SHARDS:-}" ]] || given+=("data.shards=$STREAMCHAR_SHARDS")
    set -- "${given[@]}" "$@"
    local name root
    name="$(setting name "$(setting preset demo "$@")" "$@")"
    root="$(setting root runs "$@")"
    launch "$root/$name/$stage/checkpoints" pipelines/run.py "stage=$stage" "$@"
}

# setting KEY DEFAULT [key=value ...]: the last value given for KEY.
setting() {
    local key="$1" value="$2" pair
    shift 2
    for pair in "$@"; do
        [[ "$pair" != "$key="* ]] || value="${pair#*=}"
    done
    echo "$value"
}

# serve_mlflow [root=DIR]: the tracking server over DIR/mlflow.db, on this node's loopback; before its time is over it asks
# to be queued again, where its number and so its port stay the same.
serve_mlflow() {
    local root pid port=$((30000 + SLURM_JOB_ID % 1000))
    root="$(realpath -m "$(setting root "${STREAMCHAR_ROOT:-runs}" "$@")")"
    trap 'scontrol requeue "$SLURM_JOB_ID" || true' USR1
    echo "ssh -N -L 5000:127.0.0.1:$port $(hostname), then open http://127.0.0.1:5000"
    python -m mlflow server --backend-store-uri "sqlite:///$root/mlflow.db" --artifacts-destination "$root/mlartifacts" \
        --host 127.0.0.1 --port "$port" &
    pid=$!
    wait_for_end "$pid"
}

# wait_for_end PROCESS: its exit code, whatever signals come meanwhile, and if it has ended already.
wait_for_end() {
    while kill -0 "$1" 2>/dev/null; do # a signal interrupts `wait`
        wait "$1" || true
    done
    wait "$1" # the shell remembers the code
}

# launch CHECKPOINTS SCRIPT [ARGUMENT ...]: one process per task; devices and nodes are read from SLURM_*. The batch
# script passes its own signals on. Codes: 0 done, 2 wrong input, 3 stopped and saved (the process has asked for the
# requeue itself). After any other, a crash, a killed rank or a hang, the job is queued again if it has made a checkpoint
# since it began: a mistake that comes again at the same step ends it.
launch() {
    local checkpoints="$1" began code=0 pid program
    shift
    program="$(interpreter)"
    rendezvous
    began="$(mktemp)"
    touch -d "@$(date +%s)" "$began"  # the second, for file times are coarse: what follows at once is newer
    srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
        "${STREAMCHAR_PREFIX[@]}" "$program" "$@" &
    pid=$!
    trap 'kill -USR1 "$pid" || true' USR1
    trap 'kill -TERM "$pid" || true' TERM
    wait_for_end "$pid" || code=$?
    case "$code" in
    0 | 2 | 3) ;;
    *) requeue_after_crash "$code" "$checkpoints" "$began" ;;
    esac
    rm -f "$began"
    exit "$code"
}

requeue_after_crash() {
    # The number of an array's last member is the array's: asked for by it, all members would start again.
    local code="$1" checkpoints="$2" began="$3" job="$SLURM_JOB_ID"
    [[ -z "${SLURM_ARRAY_JOB_ID:-}" ]] || job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    if ! scontrol show job "$job" | grep -q 'JobState=RUNNING'; then
        return # queued again already, cancelled, or out of time
    elif ! find "$checkpoints" -name complete.json -newer "$began" 2>/dev/null | grep -q .; then
        echo "job $job ended with code $code and no checkpoint since it began: not queued again"
    else
        echo "job $job ended with code $code after a new checkpoint: queued again"
        scontrol requeue "$job"
    fi
}
