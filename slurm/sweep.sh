#!/usr/bin/env bash
# Submits a sweep as a job array, each member a run of its own under one MLflow run, and prints the job. From anywhere:
#   slurm/sweep.sh conf/sweep/guidance.yaml preset=5b name=mine             the run `mine` has the stages before
#   slurm/sweep.sh conf/sweep/guidance.yaml --nodes=2 preset=5b at_once=4   options of sbatch; at most four at a time
# stage=STAGE takes the place of the file's own. All members are checked first. Relative paths start at the checkout's
# root. Without Slurm the members run one after the other; one that fails does not keep the next from running.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source slurm/environment.sh

options=() settings=() file="" limit=""
[[ -z "${STREAMCHAR_ROOT:-}" ]] || settings+=("root=$STREAMCHAR_ROOT")
[[ -z "${STREAMCHAR_SHARDS:-}" ]] || settings+=("data.shards=$STREAMCHAR_SHARDS")
for argument in "$@"; do
    case "$argument" in
    -*) options+=("$argument") ;;
    at_once=*) limit="%${argument#at_once=}" ;;
    *=*) settings+=("$argument") ;;
    *) file="$argument" ;;
    esac
done
prepared="$(python pipelines/sweep.py "$file" "${settings[@]}")"
read -r stage name count folder <<<"$prepared"
kept=()
for argument in "${settings[@]}"; do
    case "$argument" in
    stage=* | name=*) ;;
    *) kept+=("$argument") ;;
    esac
done
if command -v sbatch >/dev/null; then
    job="$(sbatch --parsable --output="slurm-%x-%A_%a.out" "${options[@]}" --array="0-$((count - 1))$limit" \
        --job-name="streamchar-$name" "slurm/$stage.sbatch" "${kept[@]}" "name=$name-%a" "members=$folder/members")"
    for ((member = 0; member < count; member++)); do
        echo "$name-$member  job ${job%%;*}_$member"
    done
else
    failed=()
    trap 'exit 130' INT # at once, and not on to the next member
    for ((member = 0; member < count; member++)); do
        mapfile -t swept <"$folder/members/$member"
        code=0
        python pipelines/run.py "stage=$stage" "${kept[@]}" "name=$name-$member" "${swept[@]}" || code=$?
        case "$code" in
        0) ;;
        3) exit "$code" ;; # stopped and saved: the same command goes on from here
        *) failed+=("$name-$member") ;;
        esac
    done
    if ((${#failed[@]})); then
        echo "failed: ${failed[*]}; the same command tries these again" >&2
        exit 1
    fi
fi
