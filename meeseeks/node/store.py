"""The job table on disk: SQLite in `state.dir`, so that a node that dies comes back to its jobs.

One row a job, `(id, seq, record)`, the record as MessagePack; and a few facts of the store itself: its incarnation, how
often it was opened, the last seq. The file says by SQLite's `application_id` that it is ours, and by `user_version`
which format it has.

What is forced to the disk is SQLite's `synchronous`, set anew for a commit where it differs: FULL forces the
write-ahead log, and with it all earlier commits; NORMAL leaves that to the checkpoints, so that a power cut takes the
last commits but never harms the file. The death of a process alone takes nothing of either. With `acks` what a client
is to be told of is committed unforced, and the log is forced (`settle`) just before the answer leaves: meanwhile the
executor starts what was asked for. A commit of FULL does no more to the log than that.

The store has the file to itself (`locking_mode` EXCLUSIVE): a reader could keep the log from being checkpointed, and it
would grow without a bound.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from meeseeks.core.record import Record
from meeseeks.errors import ConfigError

__all__ = ["FORMAT", "STORE_NAME", "Row", "Store", "Sync"]

STORE_NAME = "jobs.sqlite"
FORMAT = 1
"""The format that is written. A store of a later one is refused."""

Row = tuple[int, Record]
"""A record and the seq of its last change."""
Sync = Literal["acks", "all", "os"]

_APPLICATION_ID = 0x6D6B7321  # "mks!"
_MAGIC = b"SQLite format 3\0"
_SYNC_AFTER = 1.0
_RETRY_AFTER = 1.0
_RETRY_ROWS = 2000
"""So many of those that had to wait go into one commit: some 50 ms."""
_BOOTS_MAX = 1 << 20
"""With more, the numbers that the core spreads over the starts of one incarnation would not fit into its counters."""
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_MISMATCH")
_REASONS = {
    "SQLITE_FULL": "there is no room left on its disk",
    "SQLITE_READONLY": "it is read-only",
    "SQLITE_CANTOPEN": "it can't be opened or made there",
    "SQLITE_BUSY": "another program has it open",
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_PUT = "INSERT INTO jobs VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, record = excluded.record"
_DROP = "DELETE FROM jobs WHERE id = ?"
_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)

log = logging.getLogger(__name__)


class _Damaged(Exception):
    """The file is ours, and can't be read."""


class Store:
    """The store of one node, for its loop alone. Only the constructor and `begin` raise for what the disk does.

    `incarnation`, `boot` (how often it was started before), `seq` and `rows` (in the order of their seq) are what an
    earlier life left; `begin` comes before the first write.
    """

    def __init__(self, path: Path, sync: Sync) -> None:
        """Open or make it. ConfigError, in one sentence, where it can't be used; a damaged one is moved aside."""
        self.path = path
        self.trouble: str | None = None
        """Why the last commit failed, if it did: nothing counts as stored until a later one succeeds."""
        self._sync = sync
        self._pending: dict[str, Row | None] = {}  # what no commit has taken yet; None: the job is forgotten
        self._seq = 0
        self._retry_at = -math.inf
        self._unsynced_since: float | None = None
        self._forcing = True
        self._owes = False
        """Whether this turn's answers have to wait for `settle`."""
        self._log_fd: int | None = None
        self._is_named = True  # on the disk
        self.is_whole = True
        """Whether no job was left out, nor the whole file moved aside."""
        try:
            self._open()
        except _Damaged as damage:
            self._db.close()
            self.is_whole = False
            aside = _move_aside(path)
            log.error("the store %s is damaged (%s): moved to %s; no jobs are known", path, damage, aside)  # noqa: TRY400 - the sentence says it all
            self._open()
        self._claim()

    # --- opening

    def _open(self) -> None:
        _check_is_sqlite(self.path)
        try:
            self._db = sqlite3.connect(self.path, timeout=1.0, isolation_level=None)
            # Before the first look into it: what SQLite shares with other processes would need room on the disk.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._check_is_ours()
            self._set_up()
            self._read()
        except (sqlite3.DatabaseError, msgspec.ValidationError, msgspec.DecodeError) as error:
            if not isinstance(error, sqlite3.DatabaseError) or _name(error).startswith(_DAMAGE):
                raise _Damaged(str(error)) from error
            raise ConfigError(f"the store {self.path} can't be used: {_reason(error)}") from error

    def _check_is_ours(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._is_new = application != _APPLICATION_ID
        if self._is_new and (application or tables):
            raise ConfigError(f"{self.path} is the database of another program: move it away, or set another state.dir")
        if version > FORMAT:
            raise ConfigError(
                f"the store {self.path} has format {version} of a later meeseeks (this one knows {FORMAT}): "
                "run that version, or set another state.dir"
            )

    def _set_up(self) -> None:
        # While it is no WAL database yet, this goes to the file itself: it is ours from its first page on.
        if self._is_new:
            self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 67108864")
        self._db.executescript(_SCHEMA)

    def _read(self) -> None:
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _Damaged(" ".join(str(verdict).split()))
        facts = dict(self._db.execute("SELECT key, value FROM facts"))
        self.rows = list(self._records())
        self.incarnation, self.boot = str(facts.get("incarnation")), facts.get("boots", 0)
        self.seq = facts.get("seq", 0)
        if not self.boot or self.boot >= _BOOTS_MAX:
            self.incarnation, self.boot, self.seq = uuid.uuid4().hex, 0, 0
        self.seq = self._seq = max(self.seq, self.rows[-1][0] if self.rows else 0)

    def _records(self) -> Iterator[Row]:
        decode = _decoder.decode
        for jid, seq, blob in self._db.execute("SELECT id, seq, record FROM jobs ORDER BY seq"):
            try:
                yield seq, decode(blob)
            except msgspec.ValidationError as error:  # as it can be if another node has forged its counters
                self.is_whole = False
                log.error("job %s is left out of the store %s: %s", jid, self.path, error)  # noqa: TRY400 - as above

    def _claim(self) -> None:
        """Count this start, before anything is done in its name: ConfigError where that can't be stored.

        Where only the disk is full, this life gets a name of its own instead, stored once there is room: so no number
        of the stored one is used twice.
        """
        try:
            self._put_facts({"incarnation": self.incarnation, "boots": self.boot + 1})
        except sqlite3.Error as error:
            if not _name(error).startswith("SQLITE_FULL"):
                raise ConfigError(f"the store {self.path} can't be used: {_reason(error)}") from error
            self.incarnation, self.boot, self._is_named = uuid.uuid4().hex, 0, False
            self._on_failed(error, -math.inf)

    def begin(self, seq: int) -> None:
        """Count on from `seq`: on disk, or a second start would use its numbers again. Before the first write.

        ConfigError where there is no room even for that.
        """
        self._seq = seq
        with suppress(FileNotFoundError):  # opened now: later there may be no file left that this process may open
            self._log_fd = self._open_log()
        if not self._is_named:
            return
        try:
            self._put_facts({"seq": seq})
        except sqlite3.Error as error:
            raise ConfigError(f"the store {self.path} can't be used: {_reason(error)}") from error

    def _put_facts(self, facts: dict[str, str | int]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(_FACT, facts.items())
        self._db.execute("COMMIT")

    # --- writing

    @property
    def unstored(self) -> int:
        """How many jobs have changes that are not stored, for want of room."""
        return len(self._pending)

    def save_asked(self, asked: Iterable[Row], seq: int, now: float) -> bool:
        """Store what a client asked for. False: nothing of it is stored, or will be. `settle` before it is told."""
        if self.trouble is not None:
            self.retry(now)
        if self.trouble is not None:
            return False
        rows: dict[str, Row | None] = {record.spec.id: (at, record) for at, record in asked}
        if not self._commit(rows, seq, now, force=self._sync == "all"):
            return False
        self._owes = self._sync == "acks"
        return True

    def settle(self, now: float) -> bool:
        """Force to the disk what `save_asked` has stored in this turn. False: it may be lost in a power cut."""
        return not self._owes or self._force(now)

    def save(self, rows: Iterable[Row], gone: Iterable[str], seq: int, now: float) -> None:
        """Store what changed otherwise. What can't be stored now (`trouble`) is kept for a later commit."""
        batch: dict[str, Row | None] = dict.fromkeys(gone)
        batch.update((record.spec.id, (at, record)) for at, record in rows)
        self._seq = max(self._seq, seq)
        is_fine = self.trouble is None
        if is_fine and (not batch or self._commit(batch, self._seq, now, force=self._is_sync_due(now))):
            return
        self._pending.update(batch)
        self.retry(now)

    def tick(self, now: float) -> None:
        """Force what was committed unforced a second ago. To be called a few times a second."""
        if self.trouble is not None:
            self.retry(now)
        elif self._sync == "acks" and self._unsynced_since is not None and self._is_sync_due(now):
            self._force(now)

    def retry(self, now: float) -> None:
        """Try again, once a second, to store what could not be stored; in parts, so that no turn takes long."""
        if now < self._retry_at:
            return
        part = dict(list(self._pending.items())[:_RETRY_ROWS])
        if not self._commit(part, self._seq, now, force=self._sync != "os"):
            return
        for jid in part:
            del self._pending[jid]
        if self._pending:
            self._retry_at = now
            return
        log.info("the store has room again: all is stored")
        self.trouble = None

    def close(self) -> None:
        """Store the rest and close the file. What can't be stored is lost: `unstored` tells before."""
        if self._pending:
            self._commit(self._pending, self._seq, math.inf, force=True)
        if self._log_fd is not None:
            os.close(self._log_fd)
            self._log_fd = None
        try:
            self._db.close()
        except sqlite3.Error as error:
            log.warning("the store was not closed cleanly: %s", _reason(error))

    def _is_sync_due(self, now: float) -> bool:
        if self._sync == "acks":
            return self._unsynced_since is not None and now - self._unsynced_since >= _SYNC_AFTER
        return self._sync == "all"

    def _force(self, now: float) -> bool:
        try:
            if self._log_fd is None:
                self._log_fd = self._open_log()
            os.fdatasync(self._log_fd)
        except OSError as error:
            self._on_failed(error, now)
            return False
        self._owes, self._unsynced_since = False, None
        return True

    def _open_log(self) -> int:
        return os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def _commit(self, batch: dict[str, Row | None], seq: int, now: float, *, force: bool) -> bool:
        """One transaction; False, and `trouble`, if it was not to be."""
        put = [(jid, row[0], _encode(row[1])) for jid, row in batch.items() if row is not None]
        drop = [(jid,) for jid, row in batch.items() if row is None]
        try:
            if force != self._forcing:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if force else 'NORMAL'}")
                self._forcing = force
            if len(put) == 1 and not drop and self._is_named:
                self._db.execute(_PUT, put[0])  # a transaction by itself
            else:
                self._write(put, drop, seq)
        except sqlite3.Error as error:
            self._on_failed(error, now)
            return False
        self._is_named = True
        if force:
            self._owes, self._unsynced_since = False, None
        elif self._unsynced_since is None:
            self._unsynced_since = now
        return True

    def _write(self, put: list[tuple[str, int, bytes]], drop: list[tuple[str]], seq: int) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if drop:
            self._db.executemany(_DROP, drop)
        if put:
            self._db.executemany(_PUT, put)
        if drop or not put:  # else the rows tell how far the numbers have come
            self._db.execute(_FACT, ("seq", seq))
        if not self._is_named:
            self._db.executemany(_FACT, {"incarnation": self.incarnation, "boots": 1}.items())
        self._db.execute("COMMIT")

    def _on_failed(self, error: sqlite3.Error | OSError, now: float) -> None:
        reason = _reason(error)
        if reason != self.trouble:
            log.error("nothing can be stored in %s: %s; what changes is kept in memory until it can", self.path, reason)
        self.trouble = reason
        self._retry_at = now + _RETRY_AFTER
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as again:
            log.error("%s: a rollback failed: %s", self.path, _reason(again))  # noqa: TRY400 - the same


def _check_is_sqlite(path: Path) -> None:
    """ConfigError where the file is surely of somebody else. What is all zeros was torn by a power cut."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"the store {path} can't be read: {error.strerror}") from error
    if head.strip(b"\0") and head != _MAGIC:
        raise ConfigError(f"{path} is no store of jobs: move it away, or set another state.dir")


def _move_aside(path: Path) -> Path:
    """Keep a damaged store, with its log, under another name; returns that."""
    aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}")
    number = 0
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.partition('+')[0]}+{number}")
    for ending in ("-wal", "-shm", ""):  # the file itself last: until then it is not taken for moved
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
    return aside


def _name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", "")


def _reason(error: Exception) -> str:
    for name, reason in _REASONS.items():
        if _name(error).startswith(name):
            return reason
    return f"{error} ({_name(error)})" if _name(error) else str(error)
