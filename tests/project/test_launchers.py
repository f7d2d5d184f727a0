"""The launchers among the examples: a Slurm script whose shell really runs, and a PyTorchJob as Kubeflow's operator takes it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from documented import check_torchrun
from places import PROJECT

SLURM = PROJECT / "examples" / "slurm.sh"
KUBERNETES = PROJECT / "examples" / "kubernetes.yaml"
BIN = Path(sys.executable).parent
TIMEOUT_S = 240.0

# What the script calls of Slurm, for two machines that are this one. Their "step" is torchrun with the processes that it starts.
STAND_INS = {
    "srun": """
        [ "$1" = --cpus-per-task ] && shift 2
        for machine in $(seq "$SLURM_JOB_NUM_NODES"); do
            "$@" &
            echo $! >> step
        done
        worst=0
        while read -r process; do
            wait "$process" || worst=$?
        done < step
        rm step
        exit "$worst"
    """,
    # As its manual says: a signal goes to all processes of the job's steps, and not to the shell of the batch script.
    "scancel": """
        [ "$1 $2" = "--signal=TERM $SLURM_JOB_ID" ] || exit 2
        while read -r process; do
            kill -TERM "$process" $(ps -o pid= --ppid "$process")
        done < step
    """,
    "scontrol": """
        case "$1 $2" in
            "show hostnames") printf 'localhost\\nlocalhost\\n' ;;
            "requeue $SLURM_JOB_ID") echo "$2" >> requeued ;;
            *) exit 2 ;;
        esac
    """,
}
OPTIONS = (
    "--dataset", "demo", "--use_stereo", "--height", "64", "--width", "64", "--batch_size", "1", "--weights_init", "scratch", "--no_cuda",
    "--num_workers", "0", "--frame_store", "none", "--log_frequency", "1", "--model_name", "slurm", "--max_steps", "12",
)  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on two machines with one process each; its folder is where the stand-ins leave what they were asked."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in STAND_INS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}")
        (commands / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{commands}:{BIN}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),  # the script makes the port of it
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "machine[1-2]",
        "SLURM_GPUS_ON_NODE": "1",
        "TQDM_DISABLE": "1",
    }


@contextmanager
def submitted(cluster: dict[str, str], folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The script as sbatch starts it; what it leaves running is ended."""
    with (folder / "log").open("a") as log:
        job = subprocess.Popen(["bash", SLURM, *options], cwd=folder, env=cluster, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            yield job
        finally:
            for process in [*psutil.Process(job.pid).children(recursive=True), job] if job.poll() is None else []:
                process.kill()
            job.wait()


def rows(folder: Path) -> list[dict[str, Any]]:
    """What the run has logged of its training steps."""
    path = folder / "runs" / "slurm" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["mode"] == "train"]


def test_bash_reads_the_script() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SLURM], check=True)


def test_the_line_of_torchrun_parses() -> None:
    text = SLURM.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"torchrun .*?(?= &$)", text, re.MULTILINE)
    check_torchrun(line, SLURM_JOB_NUM_NODES="2", SLURM_GPUS_ON_NODE="8", SLURM_JOB_ID="17", first="gpu1", port="20017")


@pytest.mark.slow
def test_a_job_that_is_out_of_time_is_repeated_and_continues(cluster: dict[str, str], tmp_path: Path) -> None:
    with submitted(cluster, tmp_path, *OPTIONS) as job:
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(rows(tmp_path)) < 3:
            assert job.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline_s, (tmp_path / "log").read_text()
            time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(TIMEOUT_S) != 0
    assert (tmp_path / "requeued").read_text().split() == [cluster["SLURM_JOB_ID"]]
    assert not (tmp_path / "step").exists(), "the script has waited for its processes"
    models = tmp_path / "runs" / "slurm" / "models"
    (saved,) = models.glob("step_*")
    assert (saved / "state.pt").is_file()

    with submitted(cluster, tmp_path, *OPTIONS) as job:
        assert job.wait(TIMEOUT_S) == 0, (tmp_path / "log").read_text()
    assert f"Resuming from {saved.relative_to(tmp_path)}" in (tmp_path / "log").read_text()
    assert [row["step"] for row in rows(tmp_path)] == list(range(12)), "each step once"
    assert len((tmp_path / "requeued").read_text().split()) == 1, "a run that has ended is not repeated"


@pytest.mark.slow
def test_a_fault_is_not_repeated(cluster: dict[str, str], tmp_path: Path) -> None:
    with submitted(cluster, tmp_path, *OPTIONS, "--height", "65") as job:
        assert job.wait(TIMEOUT_S) != 0
    assert "must be a multiple of 32" in (tmp_path / "log").read_text()
    assert not (tmp_path / "requeued").exists()


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    loaded = yaml.safe_load(KUBERNETES.read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_job_is_one_that_the_operator_takes(job: dict[str, Any]) -> None:
    """By the types of kubeflow.org/v1 (pytorch_types.go, common_types.go) and what its webhook refuses (pytorchjob_webhook.go)."""
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert spec.keys() <= {"runPolicy", "elasticPolicy", "pytorchReplicaSpecs", "nprocPerNode"}
    assert isinstance(spec["nprocPerNode"], str), "a text: it may be auto, cpu or gpu too"
    policy = spec["runPolicy"]
    assert policy.keys() <= {"cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "schedulingPolicy"}
    assert policy["cleanPodPolicy"] in ("All", "Running", "None")
    assert type(policy["backoffLimit"]) is int
    replicas = spec["pytorchReplicaSpecs"]
    assert replicas.keys() == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    assert replicas["Worker"]["replicas"] >= 1


@pytest.mark.parametrize("kind", ["Master", "Worker"])
def test_each_pod_holds_together(job: dict[str, Any], kind: str) -> None:
    replica = job["spec"]["pytorchReplicaSpecs"][kind]
    assert replica.keys() == {"replicas", "restartPolicy", "template"}
    assert replica["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    pod = replica["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch", "the operator sets its variables"
    assert container["image"]
    assert all(isinstance(variable["name"], str) and isinstance(variable["value"], str) for variable in container["env"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all(len(volume) == 2 for volume in pod["volumes"]), "a name and what it is"
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    (memory,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == mounted["/dev/shm"]]
    assert memory["medium"] == "Memory"
    waits = next(variable["value"] for variable in container["env"] if variable["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    assert int(waits) < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("kind", ["Master", "Worker"])
def test_each_pod_runs_what_the_page_says(job: dict[str, Any], kind: str) -> None:
    spec = job["spec"]
    (container,) = spec["pytorchReplicaSpecs"][kind]["template"]["spec"]["containers"]
    *shell, script = container["command"]
    assert shell == ["/bin/bash", "-c"]
    torchrun, train = check_torchrun(script.removeprefix("exec "), MASTER_ADDR="md-train-master-0", MASTER_PORT="23456")
    assert torchrun.nproc_per_node == spec["nprocPerNode"] == str(container["resources"]["limits"]["nvidia.com/gpu"])
    assert int(torchrun.nnodes) == sum(each["replicas"] for each in spec["pytorchReplicaSpecs"].values())
    assert torchrun.rdzv_endpoint == "md-train-master-0:23456"
    assert train["resume"] == "auto"
    mounted = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert not mounted[str(train["log_dir"])]
    assert str(train["data_path"]) in mounted


@pytest.mark.parametrize(
    "line",
    [
        "torchrun --nnode 2 $(which md-train)",
        "torchrun --nproc_per_node 2 $(which md-train) --batch_sise 4",
        "torchrun --max_restarts many $(which md-train)",
        "torchrun --nnodes 2 $(which md-trane)",
    ],
)
def test_a_wrong_line_is_refused(line: str) -> None:
    with pytest.raises(AssertionError):
        check_torchrun(line)
