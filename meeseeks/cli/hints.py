"""What people type who come from other tools, and what does that here. Only looked at when a word is not known."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["for_command", "for_option"]

_COMMANDS = {
    **dict.fromkeys(("submit", "add", "enqueue", "sbatch", "qsub"), "sub"),
    **dict.fromkeys(("exec", "srun", "start-job"), "run"),
    **dict.fromkeys(("list", "ps", "jobs", "job", "queue", "squeue", "qstat"), "ls"),
    **dict.fromkeys(("cancel", "scancel", "rm", "remove", "delete", "stop", "qdel", "abort"), "kill"),
    **dict.fromkeys(("log", "tail", "cat", "output", "follow", "attach"), "logs"),
    **dict.fromkeys(("show", "info", "describe", "inspect"), "get"),
    **dict.fromkeys(("status", "sinfo", "cluster"), "stat"),
    **dict.fromkeys(("server", "worker", "daemon", "start", "join", "agent"), "node"),
    **dict.fromkeys(("config", "scontrol"), "conf"),
    "htop": "top",
    "tree": "stat --tree",
    "version": "--version",
    "hold": "set JID hold=true",
    "pause": "set JID hold=true",
    "release": "set JID hold=false",
    "resume": "set JID hold=false",
    "unhold": "set JID hold=false",
    **dict.fromkeys(("rerun", "requeue", "restart", "retry"), "set JID state=new"),
    "move": "set JID node=NODE state=new",
}
"""Words of task-spooler, pueue, Slurm, HyperQueue and docker, and what comes after `mks` here."""

_AFTER = "no job waits for another here: 'mks wait JID && mks sub ...' does"
_RESOURCES = "jobs have no resources here: the slots of a pool say how many of its jobs run at once"
_NAME = "--id names a job, and --tag marks it"
_OPTIONS = {
    **dict.fromkeys(("--after", "--depends", "--dependency", "-d"), _AFTER),
    **dict.fromkeys(("--cpus", "--cpus-per-task", "-c", "--mem", "--gpus", "--gres", "--resource"), _RESOURCES),
    **dict.fromkeys(("--name", "--job-name", "-J", "--label", "-L"), _NAME),
    **dict.fromkeys(("--time-limit", "--time"), "--runtime TIME ends a job that runs longer"),
    **dict.fromkeys(("--priority",), "there are no priorities here: jobs of a pool run in the order of their submits"),
    **dict.fromkeys(("-i", "-t", "-it", "--pty"), "a job has no terminal: its stdin is what is piped into 'mks run'"),
    **dict.fromkeys(("-n", "--ntasks", "-j", "--jobs"), "--array N submits a job N times"),
    **dict.fromkeys(("-p", "--partition", "--pool", "--group", "-g"), "the pool stands before --, as in 'p -- CMD'"),
    **dict.fromkeys(("-w", "--nodelist", "--host", "-S", "--sshlogin"), "POOL@NODE or --node says where"),
}
"""Options of their ways to submit, and what to do here."""


def for_command(word: str, known: Iterable[str]) -> str:
    """What to say of a command that there is not."""
    known = list(known)
    meant = _COMMANDS.get(word) or next(iter(get_close_matches(word, known, 1)), None)
    if meant is not None:
        return f"did you mean '{meant if meant in known else f'mks {meant}'}'?"
    if shutil.which(word) is not None:
        return f"'mks run POOL -- {word} ...' runs it as a job"
    return f"known are {', '.join(known)}"


def for_option(option: str) -> str:
    """What to say of an option of `sub` and `run` that there is not; '' if nothing is known of it."""
    return _OPTIONS.get(option, "")
