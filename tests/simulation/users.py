"""What users do, each through some node: submit, kill, change, move, run again, change a node's pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from meeseeks.core.node_state import NodeState
from meeseeks.core.record import END_STATES, is_lost
from meeseeks.core.settings import PoolSettings
from meeseeks.errors import InvalidRequest

if TYPE_CHECKING:
    from .node import SimNode
    from .world import World

__all__ = ["Users"]

Ask = Callable[[NodeState], Callable[[], None] | None]


class Users:
    """Actions of a plan. What a node answered (after it stored the turn) is told to the checks as acknowledged."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _ask(self, node: int, ask: Ask) -> None:
        """Send a request. It may change the state, and returns what is true once the answer has been given."""

        def handle(at: SimNode, state: NodeState, leaving: list[Callable[[], None]]) -> bool:
            try:
                acked = ask(state)
            except InvalidRequest as error:
                self.world.checks.note(None, f"refused by {at.name}: {error}")
                return False
            if acked is not None:
                leaving.append(acked)
            return True

        target = self.world.nodes[node]
        if target.is_up:
            target.receive("request", handle)

    def _submit(self, state: NodeState, spec: dict[str, Any]) -> Callable[[], None]:
        checks, table = self.world.checks, state.table
        known = [jid for jid in [spec["id"], *table.group(spec["id"])] if jid in table]
        before = {jid: table.get(jid) for jid in known}
        infos = state.requests.submit(dict(spec))
        for jid in infos:
            record = table.get(jid)
            assert record is not None
            old = before.get(jid)
            if old is None:
                checks.on_created(jid, state.settings.name)
            elif record.spec.generation > old.spec.generation:
                checks.on_rerun(record, state.settings.name, was_lost=is_lost(old))
        return lambda: checks.on_acked(list(infos))

    # --- actions

    def submit(self, node: int, spec: dict[str, Any]) -> None:
        """A job, or several."""
        self._ask(node, lambda state: self._submit(state, spec))

    def change(self, node: int, job: str, changes: dict[str, Any]) -> None:
        """Other values for a job that is there."""

        def ask(state: NodeState) -> Callable[[], None] | None:
            if job not in state.table and not state.table.group(job):
                return None
            for jid in [job, *state.table.group(job)]:
                record = state.table.get(jid)
                if record is not None:
                    self.world.checks.on_changed(record)
                if changes.get("resubmit") and record is not None and record.status.state in END_STATES:
                    # To ask for `resubmit` once the job has ended is to ask for a rerun: whoever asks for another one
                    # at a node that can't hear of this one doubles the job.
                    self.world.checks.job(jid).risky.add(record.spec.generation + 1)
            return self._submit(state, {"id": job, **changes})

        self._ask(node, ask)

    def kill(self, node: int, job: str) -> None:
        """Kill a job, or the jobs of a group."""

        def ask(state: NodeState) -> Callable[[], None]:
            jids = [jid for jid in [job, *state.table.group(job)] if jid in state.table]
            state.requests.kill(jids)
            killed = []
            for jid in jids:
                record = state.table.get(jid)
                assert record is not None
                if record.spec.killed_generation:
                    killed.append((jid, record.spec.killed_generation))
            return lambda: self.world.checks.on_killed(state.settings.name, killed)

        self._ask(node, ask)

    def adopt(self, node: int, of: str) -> None:
        """Have a node take over the jobs of one that is gone for good."""

        def ask(state: NodeState) -> Callable[[], None] | None:
            if not self.world.nodes[self.world.index_of[of]].gone:
                return None  # it lives: whoever says otherwise is on his own
            before = {record.spec.id: record for record in state.table}
            adopted = state.requests.adopt(of)
            self.world.checks.on_adopted(state.settings.name, [before[jid] for jid in adopted])
            return None

        self._ask(node, ask)

    def rerun(self, node: int, job: str, to: str | None) -> None:
        """Run an ended job again, perhaps on another node."""
        self.change(node, job, {"state": "new", **({"node": to} if to is not None else {})})

    def move(self, node: int, job: str, to: str | None) -> None:
        """As API.md has it: kill, wait for active=False, then set node and state=new."""
        self.kill(node, job)
        self._move_later(node, job, to, 30)

    def _move_later(self, node: int, job: str, to: str | None, tries: int) -> None:
        if tries and self.world.now < self.world.quiet_at:
            self.world.after(2.0, self._try_move, node, job, to, tries)

    def _try_move(self, node: int, job: str, to: str | None, tries: int) -> None:
        def ask(state: NodeState) -> Callable[[], None] | None:
            info = state.requests.query(job)
            if info is False:
                return None
            if info["active"] or info["state"] not in END_STATES:
                self._move_later(node, job, to, tries - 1)
                return None
            return self._submit(state, {"id": job, "state": "new", **({"node": to} if to is not None else {})})

        self._ask(node, ask)

    def pools(self, node: int, pool: str, to: dict[str, Any] | None) -> None:
        """A pushed configuration: a pool added, changed or (None) removed."""

        def ask(state: NodeState) -> None:
            pools = dict(state.settings.pools)
            if to is None:
                pools.pop(pool, None)
            else:
                pools[pool] = msgspec.structs.replace(PoolSettings(slots=2), **to)
            settings = msgspec.structs.replace(state.settings, pools=pools)
            state.configure(settings)
            self.world.nodes[node].settings = settings

        self._ask(node, ask)

    # --- the end

    def end_endless(self) -> None:
        """Kill what would go on for ever: at each node that is up, since one alone may not know of all."""

        def ask(state: NodeState) -> None:
            endless = [record.spec.id for record in state.table if record.spec.restart or record.spec.resubmit]
            state.requests.kill(endless)

        for node in self.world.nodes:
            self._ask(node.index, ask)
