#!/bin/sh
# Train on segmentation images (segTrain) and real ones (realTrain).
# Usage: sh scripts/train_soccer.sh <gpu_id> <batch_size> [data set folder] [more flags of cycle_gan.py]
# gpu_id -1 is the CPU; the folder is datasets/soccer if none is given.
set -e
if [ $# -lt 2 ]; then
    echo "usage: sh scripts/train_soccer.sh <gpu_id> <batch_size> [data set folder] [more flags]" >&2
    exit 2
fi
gpu_id=$1
batch_size=$2
folder=datasets/soccer
case ${3--} in # nothing, or a flag already
    -*) shift 2 ;;
    *) folder=${3:-$folder} && shift 3 ;;
esac
exec "${PYTHON:-python}" cycle_gan.py --recipe segmentation --gpu_ids "$gpu_id" --batch_size "$batch_size" \
    --dataset_dir "$(dirname "$folder")" --dataset_name "$(basename "$folder")" "$@"
