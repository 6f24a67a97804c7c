#!/bin/bash
# One run per seed as an array of SLURM jobs. Its arguments are those of `harness run`:
#
#   sbatch --array=0-4 examples/cluster/slurm.sh --model MODEL --tasks advbench,alpaca --data-dir DATA --set split_seed=0
#   harness report runs/harness/*        # one leaderboard of all
#
# The same line goes on where it was: finished stages are not done again, nor are they when SLURM requeues a job.
#SBATCH --job-name=harness
#SBATCH --array=0-4
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=128G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%a.log
set -euo pipefail

runs=${HARNESS_RUNS:-$SLURM_SUBMIT_DIR/runs/$SLURM_JOB_NAME}
seed=$SLURM_ARRAY_TASK_ID
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
# Since SLURM 22.05 srun does not inherit it, and would give the run one core.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

srun harness run "$@" --seed "$seed" --output "$runs/seed-$seed"
