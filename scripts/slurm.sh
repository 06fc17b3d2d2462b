#!/bin/bash
# Train on one or several nodes of a cluster with SLURM; what follows the script's name are flags of cycle_gan.py:
#   sbatch --nodes 2 --gpus-per-node 4 --cpus-per-gpu 5 --time 24:00:00 scripts/slurm.sh --dataset_name cats2dogs
# The queue may stop the job and start it again (--requeue): it goes on from its newest checkpoint, at most 10 minutes back.
#SBATCH --job-name cycle_gan
#SBATCH --ntasks-per-node 1
#SBATCH --requeue
#SBATCH --open-mode append
set -e
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A restarted process would otherwise find the addresses of dead ones (torch 2.14 keeps one store for all restarts).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# One agent on each node starts a process for each of its GPUs; they meet at a port of the first node.
exec srun --kill-on-bad-exit=1 torchrun \
    --max_restarts 3 --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))" \
    cycle_gan.py --epoch auto --checkpoint_every 10m "$@"
