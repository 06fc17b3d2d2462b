#!/bin/sh
# Train the recipe features+patch, made small, on topo2relief; translate its test folder; say where to look.
# Usage: sh scripts/demo.sh [python]      (four minutes of training: a faster machine makes a better picture)
set -e
python=${1:-python}
name=topo2relief
"$python" cycle_gan.py --dataset_name $name --recipe features+patch \
    --img_height 64 --img_width 64 --ngf 16 --ndf 16 --n_residual_blocks 3 \
    --minutes 4 --sample_interval 88 --checkpoint_every 1m
"$python" test.py --dataset_name $name
if "$python" -c "import onnx, onnxscript, onnxruntime" 2>/dev/null; then  # requirements-export.txt
    "$python" export.py --dataset_name $name --half --web --examples 4
fi
echo
echo "Look at:"
echo "  images/$name/index.html       real, translated, reconstructed: A on the left, B on the right; and how it went"
echo "  results/$name/                translations of the test folders (their truth: datasets/$name/testB and testA)"
echo "  saved_models/$name/           checkpoints; go on with: $python cycle_gan.py --dataset_name $name --epoch latest --minutes 8"
