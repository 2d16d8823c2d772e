"""What users do meanwhile: submit, kill, change and rerun jobs at random nodes, and note what they were told."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meeseeks import Client
from meeseeks.errors import InvalidRequest, MeeseeksError, NodeUnreachable, RequestFailed

from .marks import Marks

__all__ = ["Asked", "Kill", "User", "over"]

_PAUSE_S = 0.5
_OPEN_MAX = 25
"""Jobs of a user that are not over: more would only wait in line."""
_RECENT = 12
_SECONDS, _OFTEN = [(0.0, 0.0), (0.1, 0.1), (0.2, 1.0), (0.5, 3.0), (4.0, 9.0)], [3, 3, 4, 4, 2]
"""How long jobs take: the longest ones live through the loss of a node."""
_ENDLESS_S = 1000.0
"""A job that ends by a kill only; each user always has one."""


@dataclass(frozen=True)
class Kill:
    """A kill that a node has acknowledged as one, for this generation."""

    at: float
    node: str
    generation: int


@dataclass
class Asked:
    """A job as its user knows it. `answer`: `acked`, `refused`, or `unsure` where none came."""

    job: str
    spec: dict[str, Any]
    node: str
    lines: int
    seconds: float = 0.0
    answer: str = "unsure"
    kills: list[Kill] = field(default_factory=list)
    tried_kill: bool = False
    reruns: int = 0
    tags: list[str] | None = None
    """What an acknowledged change has made of its tags."""
    changed: bool = False
    notes: list[tuple[float, str]] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether nothing but its user starts it again."""
        return not (self.spec.get("retries") or self.starts_again)

    @property
    def starts_again(self) -> bool:
        """Whether it starts again and again until somebody ends that."""
        return bool(self.spec.get("restart") or self.spec.get("resubmit"))

    @property
    def is_endless(self) -> bool:
        """Whether it has to be killed."""
        return self.starts_again or self.seconds >= _ENDLESS_S

    @property
    def may_move(self) -> bool:
        """Whether its submit node may give it to another node."""
        return bool(self.spec.get("retries") or self.spec.get("resubmit"))

    def note(self, text: str) -> None:
        """Add to its story."""
        self.notes.append((time.monotonic(), text))


def over(info: Mapping[str, Any]) -> bool:
    """Whether a job reads as ended, by what is known and not by suspicion."""
    has_ended = info["state"] in ("done", "failed", "killed") and not info["active"]
    return has_ended and re.fullmatch(r"node \S+ lost", info["error"] or "") is None


class User(threading.Thread):
    """One user, with jobs of their own that nobody else touches. `clients` are theirs alone."""

    def __init__(self, name: str, seed: str, clients: Mapping[str, Client], marks: Marks, script: str) -> None:
        super().__init__(name=f"chaos-user-{name}")
        self._name = name
        self._dice = random.Random(seed)
        self._clients = clients
        self._marks = marks
        self._script = script
        self._stopped = threading.Event()
        self.jobs: dict[str, Asked] = {}
        self.defects: list[str] = []
        """What a client library must never do."""

    def stop(self) -> None:
        """Ask for nothing more, and end."""
        self._stopped.set()

    def run(self) -> None:
        """Do one thing after the other."""
        acts = [(self._submit, 12), (self._kill, 3), (self._change, 2), (self._rerun, 2)]
        while not self._stopped.wait(self._dice.expovariate(1.0 / _PAUSE_S)):
            act = self._dice.choices([act for act, _ in acts], [weight for _, weight in acts])[0]
            try:
                act()
            except Exception as error:  # noqa: BLE001 - the border of the thread: the verdict tells of it
                self.defects.append(f"{act.__name__} raised {error!r}")

    # --- what they do

    def _submit(self) -> None:
        if sum(not run.ended for job in self.jobs for run in self._marks.of(job)[-1:]) > _OPEN_MAX:
            return
        dice, job = self._dice, f"{self._name}-{len(self.jobs)}"
        lines = dice.choice((0, 1, 10, 10, 1000))
        shortest, longest = dice.choices(_SECONDS, _OFTEN)[0]
        seconds = round(dice.uniform(shortest, longest), 2)
        if all(asked.tried_kill or asked.seconds < _ENDLESS_S for asked in self.jobs.values()):
            seconds = _ENDLESS_S
        code = dice.choice(("0", "0", "0", "odd", "3"))
        spec: dict[str, Any] = {"id": job, "pool": "p", "tags": ["first"]}
        spec["args"] = ["/bin/sh", self._script, job, str(self._marks.path), str(seconds), code, str(lines)]
        kind = dice.choices(("plain", "retries", "resubmit", "restart"), (12, 6, 1, 1))[0]
        if kind == "retries":
            spec["retries"] = dice.randint(1, 3)
        elif kind != "plain":
            spec[kind] = True
        if dice.random() < 0.15:
            spec["node"] = dice.choice(list(self._clients))
        node = self._node()
        asked = self.jobs[job] = Asked(job, spec, node, lines, seconds)
        asked.answer, _ = self._ask(asked, f"submit {kind}", node, lambda client: client.submit(**spec))

    def _kill(self) -> None:
        asked = self._pick(lambda asked: not asked.tried_kill)
        if asked is not None:
            self.kill(asked, self._node())

    def kill(self, asked: Asked, node: str) -> bool:
        """Kill a job at a node; whether that was acknowledged, or the job was over."""
        asked.tried_kill = True
        answer, info = self._ask(asked, "kill", node, lambda client: client.kill(asked.job))
        if answer == "acked" and info and info["state"] == "killed":
            asked.kills.append(Kill(time.monotonic(), node, info["generation"]))
        return answer == "acked" and bool(info)

    def _change(self) -> None:
        asked = self._pick(lambda asked: not asked.changed)
        if asked is None:
            return
        asked.changed, tags = True, ["second", asked.job]
        change = {"id": asked.job, "tags": tags}
        answer, _ = self._ask(asked, "change of tags", self._node(), lambda client: client.submit(**change))
        if answer == "acked":
            asked.tags = tags

    def _rerun(self) -> None:
        """At most once a job, never of one that nobody would kill again, nor of one that is only thought to be lost."""
        asked = self._pick(lambda asked: asked.is_plain and not asked.reruns and asked.seconds < _ENDLESS_S)
        if asked is None:
            return
        node = self._node()
        answer, info = self._ask(asked, "look", node, lambda client: client.query(asked.job))
        if answer != "acked" or not info or not over(info):
            return
        asked.reruns += 1
        self._ask(asked, "rerun", node, lambda client: client.submit(id=asked.job, state="new"))

    # --- how

    def _node(self) -> str:
        return self._dice.choice(list(self._clients))

    def _pick(self, fits: Callable[[Asked], bool]) -> Asked | None:
        recent = [asked for asked in list(self.jobs.values())[-_RECENT:] if asked.answer != "refused" and fits(asked)]
        return self._dice.choice(recent) if recent else None

    def _ask(self, asked: Asked, what: str, node: str, request: Callable[[Client], Any]) -> tuple[str, Any]:
        """How a request was answered, and with what."""
        try:
            result = request(self._clients[node])
        except (InvalidRequest, NodeUnreachable, RequestFailed) as error:  # nothing was changed
            asked.note(f"{what} at {node}: refused: {error}")
            return "refused", None
        except MeeseeksError as error:
            asked.note(f"{what} at {node}: unsure: {error}")
            return "unsure", None
        info = result.get(asked.job, result) if isinstance(result, dict) else result
        told = f"{info['state']} gen={info['generation']} node={info['node']}" if isinstance(info, dict) else info
        asked.note(f"{what} at {node}: {told}")
        return "acked", info
