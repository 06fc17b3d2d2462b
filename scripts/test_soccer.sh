#!/bin/sh
# Translate the test folders (segTest, realTest) with the newest checkpoint.
# Usage: sh scripts/test_soccer.sh <gpu_id> [data set folder] [more flags of test.py]
set -e
if [ $# -lt 1 ]; then
    echo "usage: sh scripts/test_soccer.sh <gpu_id> [data set folder] [more flags]" >&2
    exit 2
fi
gpu_id=$1
folder=datasets/soccer
case ${2--} in # nothing, or a flag already
    -*) shift 1 ;;
    *) folder=${2:-$folder} && shift 2 ;;
esac
exec "${PYTHON:-python}" test.py --gpu_ids "$gpu_id" \
    --dataset_dir "$(dirname "$folder")" --dataset_name "$(basename "$folder")" "$@"
