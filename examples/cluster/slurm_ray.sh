#!/bin/bash
# A sweep on a Ray cluster that lives as long as a SLURM job. The folder must be on a file system that all nodes share:
#
#   sbatch examples/cluster/slurm_ray.sh table.yaml /shared/sweeps/table
#
# When the time is up, the same line goes on where the sweep was.
#SBATCH --job-name=harness-sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
set -euo pipefail

table=$1 output=$2
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 10000))
# Ray's nodes end with the sweep, however it ends.
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port="$port" --block &
for ((second = 0; second < 120; second++)); do
    if (: </dev/tcp/"$head"/"$port") 2>/dev/null; then break; fi
    sleep 1
done
workers=$((SLURM_JOB_NUM_NODES - 1))
if ((workers > 0)); then
    srun --nodes="$workers" --ntasks="$workers" --exclude="$head" ray start --address="$head:$port" --block &
fi

harness sweep "$table" --executor ray --address "$head:$port" --output "$output"
