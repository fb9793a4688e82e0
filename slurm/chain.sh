#!/usr/bin/env bash
# Submits a preset's stages, each waiting for the former's success, and prints the jobs. From anywhere:
#   slurm/chain.sh preset=5b name=mine
#   slurm/chain.sh --nodes=2 --gpus-per-node=4 preset=1b from=teacher     options of sbatch go to all jobs
# from=STAGE leaves the stages before it out. Relative paths start at the checkout's root. Settings are checked first.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source slurm/environment.sh

options=() settings=() from=""
[[ -z "${STREAMCHAR_ROOT:-}" ]] || settings+=("root=$STREAMCHAR_ROOT")
[[ -z "${STREAMCHAR_SHARDS:-}" ]] || settings+=("data.shards=$STREAMCHAR_SHARDS")
for argument in "$@"; do
    case "$argument" in
    -*) options+=("$argument") ;;
    from=*) from="${argument#from=}" ;;
    *) settings+=("$argument") ;;
    esac
done
configuration="$(python pipelines/run.py "${settings[@]}" --cfg)"
stages="$(sed -n '/^chain:/,/^[^ -]/s/^- //p' <<<"$configuration")"
if [[ -n "$from" ]] && ! grep -qx "$from" <<<"$stages"; then
    echo "from=$from is no stage of this chain: $(tr '\n' ' ' <<<"$stages")" >&2
    exit 2
fi

previous="" waits="nothing"
for stage in $stages; do
    [[ -z "$from" || "$stage" == "$from" ]] || continue
    from=""
    [[ -f "slurm/$stage.sbatch" ]] || continue # the streamed clip is no job
    [[ "$stage" != prepare || -z "$(setting data.shards "" "${settings[@]}")" ]] || continue
    job="$(sbatch --parsable "${options[@]}" ${previous:+--dependency="afterok:$previous" --kill-on-invalid-dep=yes} \
        "slurm/$stage.sbatch" "${settings[@]}")"
    previous="${job%%;*}"
    printf '%-13s job %-9s waits for %s\n' "$stage" "$previous" "$waits"
    waits="job $previous ($stage)"
done
