#!/bin/bash
# Trains on several machines of a Slurm cluster, one process per GPU, and continues after the job's time limit:
#
#   sbatch examples/slurm.sh --data_path /shared/kitti_data --model_name mono_model
#
# What follows the script's name are options of md-train. Submit it where the engine's environment is active, from a folder that all
# machines share: the runs go into its folder "runs".
#SBATCH --job-name md-train
#SBATCH --nodes 2
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 64
#SBATCH --time 24:00:00
#SBATCH --signal B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --output md-train-%j.log

# The interface that connects the machines, where the log says that they cannot reach each other:
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# How long torchrun lets its processes save before it kills them, seconds.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

# Five minutes before the time limit Slurm sends SIGUSR1 to this shell alone (B:). torchrun would die of that signal and leave its processes
# behind, so they and it get SIGTERM, of which they save and end. scancel with a signal reaches the job's steps, not this shell.
out_of_time=
# shellcheck disable=SC2329  # the trap calls it
stop() {
    out_of_time=yes
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap stop USR1

# One torchrun per machine. In the background, because bash would handle the signal only after a command in the foreground.
srun --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" \
    torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" --max_restarts 3 \
    --rdzv_backend c10d --rdzv_endpoint "$first:$port" --rdzv_id "$SLURM_JOB_ID" \
    "$(which md-train)" --resume auto --log_dir runs "$@" &
step=$!
wait "$step"
status=$?
if [ "$out_of_time" ]; then
    # The signal has ended the first wait.
    wait "$step"
    status=$?
fi

# What was saved continues in the same job, once it has its machines again. A run that has ended, or has a fault, is not repeated.
if [ "$out_of_time" ] && [ "$status" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
