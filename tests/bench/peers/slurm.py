"""Slurm on this machine alone: munged, slurmctld and slurmd with a configuration of their own, as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.wait import wait_until

from .way import Sizes, Way, command, need

__all__ = ["slurm"]

_UP_WITHIN_S = 60.0
_END_WITHIN_S = 120.0
_CONFIG = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=p Nodes={host} Default=YES State=UP
"""
"""Schedulers, priorities and intervals are the defaults: that is how its users have it."""
_SRUN = ["srun", "-Q", "-n1", "/bin/true"]
_SBATCH = ["sbatch", "-Q", "-o", "/dev/null", "-n1"]


@contextmanager
def slurm(folder: Path) -> Iterator[Way]:
    """`srun` for one job, `sbatch` for many: one job each, and the end of the queue looked for by `squeue`."""
    need(all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch"))), "apt-get install slurm-wlm munge")
    need(os.geteuid() == 0, "its daemons must be started as root")
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def ask(*args: str) -> str:
        return subprocess.run(args, env=env, check=False, capture_output=True, text=True).stdout.strip()

    def many(n: int) -> None:
        for _ in range(n):
            command([*_SBATCH, "--wrap", "/bin/true"], env)
        wait_until(lambda: not ask("squeue", "-h", "-t", "PD,R,CG"), _END_WITHIN_S, "an end of the queue")

    def two_at_a_time(n: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: command(_SRUN, env), range(n)))

    def submit(n: int) -> None:
        for _ in range(n):
            command([*_SBATCH, "--hold", "--wrap", "/bin/true"], env)

    with _daemons(folder, env):
        wait_until(lambda: ask("sinfo", "-h", "-o", "%T") == "idle", _UP_WITHIN_S, "an idle node of Slurm")
        yield Way(
            Sizes(one=60, many=20, submits=200, shell=20),
            one=lambda: command(_SRUN, env),
            many=many,
            submit=submit,
            shell=lambda: command([*_SBATCH, "--hold", "--wrap", "/bin/true"], env),
            others={"sbatch --wait": (lambda: command([*_SBATCH, "--wait", "--wrap", "/bin/true"], env), 2)},
            other_many={"srun two at a time": two_at_a_time},
        )
        ask("scancel", "--state=PENDING", "--partition=p")


@contextmanager
def _daemons(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """All three, in the foreground, so that they end with this."""
    folder.chmod(0o755)  # munged refuses a socket that not everybody can reach
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    host, (controller, daemon) = socket.gethostname().partition(".")[0], _free_ports()
    text = _CONFIG.format(host=host, folder=folder, controller=controller, daemon=daemon)
    (folder / "slurm.conf").write_text(text)
    munged = ["munged", "-F", "--force", f"--key-file={key}", f"--socket={folder}/munge.sock"]
    munged += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    with ExitStack() as stack:
        stack.enter_context(_running(munged, env))
        wait_until((folder / "munge.sock").exists, _UP_WITHIN_S, "munged")
        stack.enter_context(_running(["slurmctld", "-D", "-i", "-c"], env))
        stack.enter_context(_running(["slurmd", "-D", "-N", host], env))
        yield


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def _running(args: list[str], env: dict[str, str]) -> Iterator[None]:
    # The full path: munged and slurmd start themselves again by it.
    path = shutil.which(args[0]) or args[0]
    with subprocess.Popen([path, *args[1:]], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
