#!/bin/bash
# A Ray cluster inside one SLURM job, and a sweep on it:
#
#   sbatch clusters/slurm.sh tune --optimizer soap --scale 130m --gpus-per-trial 1 --ledger /shared/ledger
#
# Whatever follows the script's name is handed to tuneopt. When the time limit ends the job, submit the same line again:
# finished trials are in the ledger, interrupted ones go on from their checkpoints.
#SBATCH --job-name=tuneopt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
# A warning a minute before the end, so that the driver stops by itself.
#SBATCH --signal=B:TERM@60
set -euo pipefail

# The project, installed where all nodes see it (`make .venv/.ready` in a checkout does that).
TUNEOPT_HOME=${TUNEOPT_HOME:-$SLURM_SUBMIT_DIR}
export PATH="$TUNEOPT_HOME/.venv/bin:$PATH"

# Members of this job share a secret that no other job knows; it travels in the job's environment.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
# Jobs that share a machine need ports of their own.
port=$((20000 + SLURM_JOB_ID % 20000))

# Every node runs Ray in the foreground for as long as the job lasts; SLURM ends them with it.
srun --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1 --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    ray start --address="$address:$port" --block &
  sleep 15
fi

# The driver runs here, in the background, so that the warning reaches it.
tuneopt "$@" --address "$address:$port" &
driver=$!
trap 'kill -TERM "$driver"' TERM
code=0
wait "$driver" || code=$?
# The trapped signal ends `wait` before the driver has ended.
while kill -0 "$driver" 2>/dev/null; do
  code=0
  wait "$driver" || code=$?
done
exit "$code"
