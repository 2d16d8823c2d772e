"""All processes below the executor, and which task each belongs to.

Every process of a task descends from the executor: from the task's leader, or, since the executor is a subreaper, from
an orphan: a child of the executor that it did not spawn, because its parent has ended. So once the leader is reaped,
a task is gone exactly when none of the executor's children is an orphan of that task; the kernel keeps that list.

To whom an orphan belongs is seen from its session, from having been seen below the task before, from the mark in its
environment, or from its brand. One that has got rid of all that before anybody looked is taken for the last task's
that lives: it can't be told apart, but it is never forgotten.

What runs as another user (sudo, a setuid program) may not be ours to kill. No task waits for such an orphan for ever:
the log tells of it, and from then on it is nobody's.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection

from .brands import brand, is_branded_by
from .processes import (
    Process,
    below,
    branches,
    children,
    inspect,
    is_ours_to_signal,
    let_go,
    lock_limit_of,
    mark_of,
    send,
    snapshot,
)
from .task import Task

__all__ = ["Family"]

_CHASES = 200  # some 10 ms

log = logging.getLogger(__name__)


class Family:
    """The tasks whose trees live, and the reaping of all children: nothing else in this process may wait for any."""

    def __init__(self, marks: str) -> None:
        self._marks = marks
        """What the marks of all our tasks begin with."""
        self._leaders: dict[int, Task] = {}
        """By pid, until reaped."""
        self._sessions: dict[int, Task] = {}
        """By session, until nothing is left of the task."""
        self._by_mark: dict[str, Task] = {}
        self._by_brand: dict[int, Task] = {}
        self._members: dict[tuple[int, int], Task] = {}
        self._given_up: set[tuple[int, int]] = set()
        """Orphans that we may not kill, of tasks that have ended or are about to."""
        self._ended: list[Task] = []
        self._has_ended = False

    def __len__(self) -> int:
        return len(self._by_mark)

    def add(self, task: Task) -> None:
        """Its leader was spawned."""
        self._leaders[task.pid] = task
        self._sessions[task.pid] = task
        self._by_mark[task.mark] = task
        self._by_brand[brand(task.mark)] = task

    def remove(self, task: Task) -> None:
        """Nothing is left of it."""
        del self._by_mark[task.mark], self._by_brand[brand(task.mark)]
        if self._sessions.get(task.pid) is task:  # else its id is in use again, by a later task
            del self._sessions[task.pid]
        for member in task.members:
            self._members.pop(member, None)

    def reap(self) -> tuple[list[Task], bool]:
        """Take all exit statuses: the tasks whose leader has ended since the last call, and whether any child has."""
        self._reap()
        result = self._ended, self._has_ended
        self._ended, self._has_ended = [], False
        return result

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):  # told of children that are traced by their parent, which a child may ask for
                let_go(pid, os.WSTOPSIG(status))
                continue
            self._has_ended = True
            task = self._leaders.pop(pid, None)
            if task is not None:
                task.rc = os.waitstatus_to_exitcode(status)
                self._ended.append(task)

    def left_of(self, tasks: Collection[Task], seen: set[tuple[int, int]]) -> tuple[set[Task], bool]:
        """Those of these leaderless tasks of which anything lives, and whether to reap and look again to be sure.

        The second is so where a child was just ending: whose it was can't be seen any more, and what it has forked may
        not be in the list. `seen` is of those that were dead at an earlier look: who is not reaped since, has only lost
        its main thread.
        """
        left: set[Task] = set()
        again = False
        for process in self._orphans():
            identity = (process.pid, process.ticks)
            if process.is_dead and identity not in seen:
                seen.add(identity)
                again = True
            elif (owner := self._owner(process)) is not None:
                left.add(owner)
            elif not process.is_dead and ((now := inspect(process.pid)) is None or now.is_exiting):
                again = True
            elif not is_ours_to_signal(process.pid):
                self._give_up(process, None)
            elif (mark_of(process.pid) or "").startswith(self._marks) or is_branded_by(self._marks, process.pid):
                log.warning("process %d is left of a task that has ended: killed", process.pid)
                send(process, signal.SIGKILL)
        return left.intersection(tasks), again

    def signal_trees(self, tasks: Collection[Task], *numbers: int) -> None:
        """Signal every process of these tasks, with all numbers in turn."""
        processes = snapshot()
        roots: dict[Task, list[int]] = {task: [] for task in tasks}
        for process in processes.values():
            if process.parent == os.getpid():
                owner = self._leaders.get(process.pid) or self._owner(process)
                if owner in roots:
                    roots[owner].append(process.pid)
        by_parent = branches(processes)
        for task, pids in roots.items():
            tree = [processes[pid] for pid in below(by_parent, pids)]
            for process in tree:
                member = (process.pid, process.ticks)
                task.members.add(member)
                self._members[member] = task
            for number in numbers:
                self._signal(task, tree, number)

    def _signal(self, task: Task, tree: list[Process], number: int) -> None:
        # The kernel signals a whole group in one step, those that are being forked as well. As long as one of the
        # tree is in it, its id is no stranger's.
        in_group = any(process.group == task.pid for process in tree)
        if in_group:
            try:
                os.killpg(task.pid, number)
            except ProcessLookupError:
                in_group = False  # they ended since
            except PermissionError:
                in_group = False  # none of it is ours to signal; `send` says so
        for process in tree:
            if not (in_group and process.group == task.pid):
                send(process, number)

    def chase(self, tasks: Collection[Task]) -> None:
        """SIGKILL to the orphans of these tasks, again and again for a while.

        What forks and ends all the time is gone before a look at all processes comes to it. But its parent is gone as
        well then: it is our child, and a look at these is quick.
        """
        for _ in range(_CHASES):
            self._reap()
            found = False
            # The youngest first: the others may be dead by now.
            for pid in reversed(children()):
                process = inspect(pid) if pid not in self._leaders else None
                if process is None or (pid, process.ticks) in self._given_up:
                    continue
                owner = self._owner(process)
                if owner in tasks:
                    try:
                        os.kill(pid, signal.SIGKILL)  # nobody else can have its id: it is for us to reap
                        found = True
                    except PermissionError:
                        self._give_up(process, owner)
                found = found or process.is_exiting
            if not found:
                return

    def kill_all(self) -> bool:
        """SIGKILL to everything below us, strays as well. False if there was nothing that can be killed."""
        processes = snapshot()
        tree = below(branches(processes), [os.getpid()]) - {os.getpid()}
        sent = [send(processes[pid], signal.SIGKILL) for pid in tree]
        return any(sent)

    def _give_up(self, process: Process, owner: Task | None) -> None:
        """It counts for gone: whoever waits for its end is to look again."""
        whose = "that a job has left" if owner is None else f"of job {owner.order.key.job!r}"
        log.warning("process %d %s runs as another user: it can't be killed, and goes on", process.pid, whose)
        self._given_up.add((process.pid, process.ticks))
        self._has_ended = True

    def _orphans(self) -> list[Process]:
        """Our children that we did not spawn. Reaps nothing, so leaders keep their ids meanwhile."""
        pids = children()
        if len(pids) == len(self._leaders):  # leaders are our children until they are reaped
            self._given_up.clear()
            return []
        found = (inspect(pid) for pid in pids if pid not in self._leaders)
        orphans = {(process.pid, process.ticks): process for process in found if process is not None}
        self._given_up.intersection_update(orphans)
        return [process for identity, process in orphans.items() if identity not in self._given_up]

    def _owner(self, process: Process) -> Task | None:
        """The task that an orphan belongs to, as far as that can be seen."""
        owner = self._sessions.get(process.session) or self._members.get((process.pid, process.ticks))
        if owner is None:
            mark = mark_of(process.pid)
            owner = self._by_mark.get(mark) if mark is not None else None
        if owner is None:
            limit = lock_limit_of(process.pid)
            owner = self._by_brand.get(limit) if limit is not None else None
        if owner is None and len(self._by_mark) == 1 and is_ours_to_signal(process.pid):
            (owner,) = self._by_mark.values()  # nobody else could have left it
        return owner
