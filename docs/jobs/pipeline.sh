#!/bin/bash
# Submit the whole chain: prepare (an array), merge, pretrain, fine-tune; each waits for the one before it.
#
#   SOURCE=/data/photos OUT=/data/cache RUN_DIR=/data/runs/photos docs/jobs/pipeline.sh
#
# Settings of every script go in the environment, options of sbatch in PREPARE_SBATCH, MERGE_SBATCH, PRETRAIN_SBATCH,
# FINETUNE_SBATCH (for example PRETRAIN_SBATCH="--gpus-per-node=1 --time=08:00:00") and, for all of them, SBATCH_OPTIONS.
# Labels elsewhere: LABELED=/data/birds_cache; LABELED=none leaves fine-tuning out.
# If a job fails, those that wait for it are cancelled. Run again, each goes on where it was or finds its work done.
set -euo pipefail
jobs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Settings, all from the environment.
: "${SOURCE?folder or archive of images; empty: the built-in set}"
: "${OUT:?folder for the shards, seen by every machine}" "${RUN_DIR:?folder of the run, seen by every machine}"
LABELED=${LABELED:-$OUT}
export SOURCE OUT RUN_DIR

# submit SCRIPT "OPTIONS OF THIS SCRIPT" OPTION...: prints the number of the job
submit() {
    local script=$1 all own
    read -ra all <<<"${SBATCH_OPTIONS:-}"
    read -ra own <<<"$2"
    shift 2
    sbatch --parsable --kill-on-invalid-dep=yes "$@" "${all[@]}" "${own[@]}" "$jobs/$script" | cut -d';' -f1
}

# Half a chain is of no use to anybody.
submitted=()
give_up() {
    ((${#submitted[@]} == 0)) || scancel "${submitted[@]}" || true
    echo "the chain cannot be submitted, see above; cancelled: ${submitted[*]:-none}" >&2
}
trap give_up ERR

prepare=$(submit prepare.sbatch "${PREPARE_SBATCH:-}")
submitted+=("$prepare")
echo "prepare   $prepare"
merge=$(submit merge.sbatch "${MERGE_SBATCH:-}" --dependency="afterok:$prepare")
submitted+=("$merge")
echo "merge     $merge"
pretrain=$(SHARDS=$OUT submit pretrain.sbatch "${PRETRAIN_SBATCH:-}" --dependency="afterok:$merge")
submitted+=("$pretrain")
echo "pretrain  $pretrain"
if [[ $LABELED != none ]]; then
    finetune=$(SHARDS=$LABELED submit finetune.sbatch "${FINETUNE_SBATCH:-}" --dependency="afterok:$pretrain")
    echo "finetune  $finetune"
fi
