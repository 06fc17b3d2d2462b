#!/bin/sh
# Everything that is to be measured on a first day with a GPU, in at most half an hour:
#   sh benchmarks/gpu.sh [python]
# writes benchmarks/results/*_gpu.json and fills the table in docs/performance.md. Each benchmark has its share of the
# time; one that fails, or takes longer, is named at the end, and the others go on.
python=${1:-python}
cd "$(dirname "$0")/.."
results=benchmarks/results
failed=

measure() {  # <minutes> <name> <script> [flags]
    minutes=$1 name=$2 script=$3
    shift 3
    echo "== $name"
    timeout "${minutes}m" "$python" "benchmarks/$script" --device cuda --json "$results/${name}_gpu.json" "$@" || failed="$failed $name"
}

"$python" datasets/earth.py topo2relief
measure 8 train_step train_step.py --size 256 --batch 1 8 --rounds 5 --steps 3
measure 5 ablation_attention ablation.py --recipe attention --batch_size 4 --rounds 5
measure 3 ablation_classic ablation.py --recipe classic --batch_size 4 --rounds 5
measure 1 layer_norm layer_norm.py
measure 2 attention self_attention.py
measure 2 loader loader.py --workers 0 4 8
measure 3 translate translate.py
measure 5 remainder remainder.py
"$python" benchmarks/fill_tables.py docs/performance.md "$results"/*_gpu.json
[ -z "$failed" ] || { echo "not measured:$failed" >&2; exit 1; }
