"""What goes into one snapshot: how many records, and what one node has heard of another that is silent now."""

from __future__ import annotations

import msgspec

from .effects import Snapshot
from .mesh import Mesh
from .record import Record
from .table import Table

__all__ = ["fitting", "tail"]

_SNAPSHOT_BYTES = 8 * 1024 * 1024
"""About how much one answer to a sync has: the rest is asked for again."""
_RECENT = 20_000
"""Changes of the whole table that are told where what was heard of one node is not known any more."""


def fitting(records: list[Record]) -> int:
    """How many of the first records go into one snapshot: at least one, however large."""
    size = 0
    for count, record in enumerate(records):
        size += len(msgspec.msgpack.encode(record))
        if size > _SNAPSHOT_BYTES:
            return max(1, count)
    return len(records)


def tail(name: str, table: Table, mesh: Mesh, origin: str, incarnation: str, since: int) -> Snapshot:
    """What the node `name` has heard of changes of `origin` after its `since`; with `more` if that is too much."""
    told = Snapshot(node=name, incarnation=incarnation, since=since, origin=origin, seq=since)
    heard = mesh.tail_of(origin, incarnation, since)
    if heard is None:  # too long ago: the most recent of all is the best that is left
        newest = table.changes_since(max(0, table.seq - _RECENT))[0][::-1]
        peer, records = mesh.peers[origin], newest[: fitting(newest)][::-1]
        return msgspec.structs.replace(told, incarnation=peer.incarnation, seq=peer.reach, records=records)
    changed, life, seq = heard
    records, ends = [], []
    for jid, at in sorted(changed.items(), key=lambda item: item[1]):
        record = table.get(jid)
        if record is not None:
            records.append(record)
            ends.append(at)
    count = _whole_groups(ends, fitting(records))
    more = count < len(records)
    seq = ends[count - 1] if more else seq
    return msgspec.structs.replace(told, incarnation=life, seq=seq, more=more, records=records[:count])


def _whole_groups(seqs: list[int], count: int) -> int:
    """The largest count up to this one that divides no group of one seq: what is asked for next begins behind a seq.

    Unless the first group is larger than that: it is divided, and its rest can't be asked for.
    """
    whole = count
    while 0 < whole < len(seqs) and seqs[whole - 1] == seqs[whole]:
        whole -= 1
    return whole or count
