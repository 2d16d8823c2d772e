"""What clients may ask of a node's table: submit and change, kill, query, list, and look at the mesh.

Each method checks everything before it changes anything, and raises InvalidRequest with one sentence otherwise.
"""

from __future__ import annotations

import uuid
from typing import Any

from meeseeks.errors import InvalidRequest

from .effects import Beat, PoolStatus
from .ledger import Ledger
from .lifecycle import first_status, is_resubmitted
from .mesh import Mesh
from .owner import Owner
from .placement import CONFIG_POOL
from .record import COUNT_MAX, END_STATES, KILLED, NEW, Record, Spec, is_active, is_dead, is_lost, view_state
from .spec import MAX_NAME_LENGTH, check
from .submitter import Submitter
from .wording import shown

__all__ = ["Requests"]

Info = dict[str, Any]

_MOVES = ("pool", "node")
_JOBS_MAX = 20_000
"""Jobs that one request makes or changes: some 50 µs each, in which the node does nothing else."""


class Requests:
    """The requests of clients, against one node's table."""

    def __init__(self, ledger: Ledger, mesh: Mesh, owner: Owner, submitter: Submitter) -> None:
        self.ledger = ledger
        self.mesh = mesh
        self.owner = owner
        self.submitter = submitter

    # --- submit

    def submit(self, request: Any) -> dict[str, Info]:
        """Make a job, or change the one that has the id. Returns the jobinfo of each job that it is about."""
        return self.submit_many([request])

    def submit_many(self, requests: Any) -> dict[str, Info]:
        """The same for several jobspecs: all of them or, if one is wrong, none."""
        if not isinstance(requests, list):
            raise InvalidRequest(f"submit_many takes a list of jobspecs, not {type(requests).__name__}")
        planned: list[tuple[str, Record | None, Info]] = []
        made: set[str] = set()
        for number, request in enumerate(requests, 1):
            for jid, record, changes in self._plan(request, made):
                planned.append((jid, record, changes))
                made.update((jid, changes.get("group", jid)))
            if len(planned) > _JOBS_MAX:
                raise InvalidRequest(
                    f"a request makes or changes up to {_JOBS_MAX} jobs, one for each node that a jobspec names: "
                    f"these are more with jobspec {number} of {len(requests)}; send them in parts"
                )
        for jid, record, changes in planned:
            self._carry_out(jid, record, changes)
        return {jid: self._info(jid) for jid, _, _ in planned}

    def _plan(self, request: Any, made: set[str]) -> list[tuple[str, Record | None, Info]]:
        """What a jobspec comes down to: (id, the record to change or None for a new job, checked fields)."""
        if not isinstance(request, dict):
            raise InvalidRequest(f"a jobspec is a map, not {type(request).__name__}")
        table, jid = self.ledger.table, request.get("id")
        if jid is not None and not isinstance(jid, str):
            check(request, new=True)  # says what an id has to be
        known = [jid] if isinstance(jid, str) and jid in table else table.group(jid) if isinstance(jid, str) else []
        if jid in made or not made.isdisjoint(known):
            raise InvalidRequest(f"id {jid!r} stands twice in one submit_many, itself or as one of a group")
        changes = check(request, new=not known)
        if not known:
            new = self._expand(changes)
            for one, _ in new:
                if one in table or one in made:
                    raise InvalidRequest(f"id {one!r} is taken: choose another id for the jobs on several nodes")
            return [(one, None, fields) for one, fields in new]
        planned: list[tuple[str, Record | None, Info]] = []
        for one in known:
            record = table.get(one)
            assert record is not None
            fields = {key: value for key, value in changes.items() if key != "id"}
            if record.spec.group == jid and "pool" in fields and "args" in fields:
                fields.pop("node", None)  # the submit again: each of the group has the node that it was made for
            elif record.spec.group == jid and fields.get("node", record.spec.node) != record.spec.node:
                raise InvalidRequest(
                    f"node {shown(fields['node'])} is refused: {jid!r} are several jobs, each for a node of its own; "
                    f"name one of them, as {one!r}"
                )
            planned.append((one, record, self._check_change(record, fields)))
        return planned

    def _expand(self, changes: Info) -> list[tuple[str, Info]]:
        """A new job for each node that `node` names; one job if it names none, or just one."""
        wish, pool = changes.get("node"), changes["pool"]
        jid = changes.pop("id", None) or uuid.uuid4().hex
        if pool == CONFIG_POOL and wish is None:
            wish = changes["node"] = self.ledger.name
        if wish is None or (isinstance(wish, str) and not wish.endswith("*")):
            return [(jid, changes)]
        nodes: dict[str, None] = {}
        for pattern in [wish] if isinstance(wish, str) else wish:
            if not pattern.endswith("*"):
                nodes[pattern] = None
                continue
            found = [name for name in self._nodes_with(pool) if name.startswith(pattern[:-1])]
            if not found:
                have = ", ".join(self._nodes_with(pool)) or "none"
                raise InvalidRequest(
                    f"node {pattern!r} matches no online node that has pool {pool!r} (nodes that have it: {have})"
                )
            nodes.update(dict.fromkeys(found))
        ids = {name: f"{jid}@{name}" for name in nodes}
        longest = max(ids.values(), key=len)
        if len(longest) > MAX_NAME_LENGTH:
            raise InvalidRequest(
                f"id has {len(jid)} characters, and {len(longest)} with @ and the node: at most {MAX_NAME_LENGTH} "
                "are allowed for each job of several nodes"
            )
        return [(one, {**changes, "node": name, "group": jid}) for name, one in ids.items()]

    def _nodes_with(self, pool: str) -> list[str]:
        names = [p.name for p in self.mesh.peers.values() if self.mesh.is_online(p.name, self.ledger.now)]
        found = [name for name in names if pool == CONFIG_POOL or pool in self._beat_pools(name)]
        if pool in self.owner.pools:
            found.append(self.ledger.name)
        return sorted(found)

    def _beat_pools(self, name: str) -> dict[str, Any]:
        beat = self.mesh.peers[name].beat
        return dict(beat.pools) if beat is not None else {}

    def _check_change(self, record: Record, fields: Info) -> Info:
        """The fields that really change, with `state`; or InvalidRequest if the job must not be changed so now."""
        spec, state = record.spec, fields.pop("state", None)
        is_resend = "pool" in fields and "args" in fields
        changes = {key: value for key, value in fields.items() if getattr(spec, key) != value}
        if changes.get("node", "") is None and changes.get("pool", spec.pool) == CONFIG_POOL:
            raise InvalidRequest(
                f"job {spec.id!r}: node None is refused in pool {CONFIG_POOL!r}: name the node to change"
            )
        if isinstance(changes.get("node"), list) or (changes.get("node") or "").endswith("*"):
            raise InvalidRequest(
                f"node {changes['node']!r} names several nodes: that is for new jobs only, and {spec.id!r} exists"
            )
        if is_active(record):
            moved = [key for key in _MOVES if key in changes]
            if moved or (state == NEW and not (is_resend and not changes)):
                what = "it is being killed: wait" if is_dead(record) else "kill it first, and wait"
                raise InvalidRequest(
                    f"job {spec.id!r} is active on {record.status.node!r}: {what} for active=False, "
                    f"before you change {moved[0] if moved else 'its state'}"
                )
        if ("args" in changes or "pool" in changes) and (
            isinstance(changes.get("args", spec.args), dict) != (changes.get("pool", spec.pool) == CONFIG_POOL)
        ):
            raise InvalidRequest(f"job {spec.id!r}: args is a map exactly where pool is {CONFIG_POOL!r}")
        if state is not None:
            changes["state"] = state
        if changes and state != KILLED and max(spec.lamport, spec.generation) >= COUNT_MAX:
            raise InvalidRequest(f"job {spec.id!r} can't be changed: its counters were forged; kill it, submit another")
        return changes

    def _carry_out(self, jid: str, record: Record | None, changes: Info) -> None:
        state = changes.pop("state", None)
        if record is None:
            self._create(jid, changes, killed=state == KILLED)
            return
        if state == KILLED:
            self._kill(record)
            record = self.ledger.table.get(jid) or record
        elif state == NEW and view_state(record) in END_STATES:
            changes.update(self._rerun(record, changes))
        if changes:
            self.ledger.change_spec(record, **changes)

    def _create(self, jid: str, fields: Info, *, killed: bool) -> None:
        ledger = self.ledger
        ledger.lamport += 1
        spec = Spec(
            **fields,
            id=jid,
            submit_node=ledger.name,
            submit_ts=ledger.wall,
            ts=ledger.wall,
            lamport=ledger.lamport,
            writer=ledger.name,
            killed_generation=1 if killed else 0,
        )
        ledger.create(spec, first_status(spec, ledger.wall))

    def _rerun(self, record: Record, changes: Info) -> Info:
        """A new generation, and perhaps a new submit node.

        A job that may be given to other nodes by its submit node stays with it: only that node knows whether a copy
        of it lives somewhere (DESIGN section 3).
        """
        spec, rerun = record.spec, {"generation": record.spec.generation + 1}
        leased = spec.asks_rerun or record.status.leased
        away = spec.submit_node != self.ledger.name and not self.mesh.is_online(spec.submit_node, self.ledger.now)
        here = changes.get("node", spec.node) == self.ledger.name
        # A job that was killed before its end was heard of: its submit node may have assigned it since, unheard.
        has_ended = record.status.state in END_STATES or is_lost(record)
        if not leased and has_ended and (away or here):
            return {**rerun, "submit_node": self.ledger.name}
        return dict(rerun)

    def adopt(self, name: Any) -> dict[str, Info]:
        """Become the submit node of the jobs of a node that never comes back. Returns the jobinfo of each.

        Refused while that node is heard of, or has been within `state.timeout`. A node that comes back after all lets
        go of them when it hears of it: until then it may assign them as well.
        """
        if not isinstance(name, str) or not name:
            raise InvalidRequest(f"adopt takes the name of a node, not {shown(name)}")
        if name == self.ledger.name:
            raise InvalidRequest(f"node {name!r} is the asked node itself: ask another one to adopt its jobs")
        homes = {record.spec.submit_node for record in self.ledger.table} - {self.ledger.name}
        if name not in homes and name not in self.mesh.peers:
            known = ", ".join(sorted(homes | set(self.mesh.peers))) or "none"
            raise InvalidRequest(f"no node {shown(name)} is known to {self.ledger.name!r} (known are: {known})")
        silent_s = self.mesh.silence(name, self.ledger.now)
        if silent_s < self.ledger.settings.timeout:
            raise InvalidRequest(
                f"node {name!r} may be alive: before its jobs can be adopted it has to be silent for "
                f"{self.ledger.settings.timeout:g} s, and has been so for {silent_s:.1f} s"
            )
        return {jid: self._info(jid) for jid in self.submitter.adopt(name)}

    def forget(self, name: Any) -> Info:
        """Let another machine have the name of a node: forget which identity it came with.

        Refused while that node is online. `known` in the answer says whether it was known here at all.
        """
        if not isinstance(name, str) or not name:
            raise InvalidRequest(f"forget takes the name of a node, not {shown(name)}")
        if name == self.ledger.name:
            raise InvalidRequest(f"node {name!r} is the asked node itself: stop it, and ask another one to forget it")
        if self.mesh.is_online(name, self.ledger.now):
            raise InvalidRequest(f"node {name!r} is online: stop it before it is forgotten")
        return {"node": name, "known": self.mesh.names.forget(name)}

    # --- kill, query, list

    def kill(self, what: Any) -> Any:
        """Kill by id, ids or filters; returns what `query` would. A job that has ended stays as it is."""
        if what == {}:
            raise InvalidRequest("kill takes an id, a list of ids, or filters: none would be every job")
        return self._pick(what, act=self._kill)

    def query(self, what: Any) -> Any:
        """One jobinfo or False by id; {jid: jobinfo} by ids or filters."""
        return self._pick(what)

    def ls(self, filters: Any) -> list[str]:
        """The ids of the jobs that match filters."""
        if not isinstance(filters, (dict, type(None))):
            raise InvalidRequest(f"ls takes filters, {{key: value}}, not {type(filters).__name__}")
        return self.ledger.table.select(filters or {})

    def _pick(self, what: Any, act: Any = None) -> Any:
        table = self.ledger.table
        if isinstance(what, str):
            record = table.get(what)
            if record is None:
                return False
            if act is not None:
                act(record)
            return self._info(what)
        if isinstance(what, list):
            if not all(isinstance(jid, str) for jid in what):
                raise InvalidRequest(f"a list of job ids has strings only, not {shown(what)}")
            found = [jid for jid in dict.fromkeys(what) if jid in table]
        elif isinstance(what, dict):
            found = table.select(what)
        else:
            raise InvalidRequest(f"expected a job id, a list of them, or filters, not {type(what).__name__}")
        if act is not None:
            for jid in found:
                act(table.get(jid))
        return {jid: self._info(jid) for jid in found}

    def _kill(self, record: Record) -> None:
        spec, status = record.spec, record.status
        same_generation = spec.generation == status.generation
        if spec.killed_generation >= spec.generation:
            return
        if same_generation and status.state in END_STATES and not is_resubmitted(record):
            return
        self.ledger.change_spec(record, killed_generation=spec.generation)

    def _info(self, jid: str) -> Info:
        info = self.ledger.table.info(jid)
        record = self.ledger.table.get(jid)
        if record is not None and info["state"] == NEW:
            info["reason"] = self.submitter.why_waiting(record)
        return info

    # --- the mesh

    def nodes(self, own: Beat) -> dict[str, Info]:
        """Every node that this one knows, itself (by its own heartbeat) included, with its status."""
        now = self.ledger.now
        found = {own.node: _node_info(own, "online", 0.0, own.address)}
        for peer in self.mesh.peers.values():
            if peer.beat is None:
                continue
            if self.mesh.is_online(peer.name, now):
                state = "online"
            elif peer.beat.leaving:
                state = "left"
            else:
                state = "lost" if self.mesh.is_lost(peer.name, now) else "offline"
            found[peer.name] = _node_info(
                peer.beat, state, self.mesh.quiet(peer.name, now), peer.host or peer.beat.address
            )
        return found

    def pools(self) -> dict[str, dict[str, int | None]]:
        """Free slots of each pool on each online node; None where there is no limit."""
        found: dict[str, dict[str, int | None]] = {}
        names = {name for name in self.owner.pools if name != CONFIG_POOL}
        for peer in self.mesh.peers.values():
            if self.mesh.is_online(peer.name, self.ledger.now):
                names.update(self._beat_pools(peer.name))
        for pool in sorted(names):
            for candidate in self.submitter.candidates(pool, all_online=True):
                slots = candidate.pool.slots
                free = None if not slots else max(0, slots - self.ledger.loads.jobs[candidate.node, pool])
                found.setdefault(pool, {})[candidate.node] = 0 if candidate.pool.drain else free
        return found


def _node_info(beat: Beat, state: str, silent_s: float, address: str) -> Info:
    return {
        "online": state == "online",
        "state": state,
        "ts": beat.ts,
        "silent_s": round(silent_s, 3),
        "loadavg": beat.loadavg,
        "version": beat.version,
        "address": address,
        "port": beat.port,
        "pub_port": beat.pub_port,
        "pools": {name: _pool_info(pool) for name, pool in beat.pools.items()},
        "sees": list(beat.sees),
        "links": list(beat.links),
        "info": dict(beat.info),
    }


def _pool_info(pool: PoolStatus) -> Info:
    return {
        "slots": pool.slots,
        "running": pool.running,
        "waiting": pool.waiting,
        "hold": pool.hold,
        "drain": pool.drain,
    }
