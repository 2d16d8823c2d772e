"""What the names of hosts stand for, asked in threads of their own.

libzmq would ask at each attempt to connect, in the one thread that all connections have: where no name server answers,
none of them gets on meanwhile. So it is given addresses only.
"""

from __future__ import annotations

import logging
import socket
import threading

from meeseeks.clock import monotonic
from meeseeks.wire.origin import ip_version

__all__ = ["Lookups"]

log = logging.getLogger(__name__)

_ASK_EVERY = 2.0


class Lookups:
    """Belongs to the loop of the node. A thread asks for one name, writes down what it heard, and ends.

    Nobody waits for these threads: they can't be stopped, and they hold nothing that would have to be closed.
    """

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._asking: set[str] = set()
        self._asked_at: dict[str, float] = {}
        self._unknown: dict[str, str] = {}  # names, and what was said of them

    def address(self, host: str) -> str | None:
        """The address of a host; None as long as it is not known, and it is asked for."""
        if host == "localhost":
            return "127.0.0.1"
        if ip_version(host.strip("[]")):
            return host
        if host not in self._found:
            self.ask(host)
        return self._found.get(host)

    def ask(self, host: str) -> None:
        """Nobody was reached at its address: ask anew, if it is a name that nobody asks for, or has just asked for."""
        now = monotonic()
        is_name = host != "localhost" and not ip_version(host.strip("[]"))
        if not is_name or host in self._asking or now - self._asked_at.get(host, float("-inf")) < _ASK_EVERY:
            return
        self._asked_at[host] = now
        self._asking.add(host)
        try:
            threading.Thread(target=self._ask, args=(host,), name=f"lookup of {host}", daemon=True).start()
        except RuntimeError:  # there can be no more threads now
            self._asking.discard(host)

    def _ask(self, host: str) -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # a ValueError for what can be no name
            why = getattr(error, "strerror", None) or str(error)
            if self._unknown.get(host) != why:
                self._unknown[host] = why
                log.warning("the address of host %s is not known: %s", host, why)
        else:
            self._unknown.pop(host, None)
            families = [family for family, *_ in answers]
            family = socket.AF_INET if socket.AF_INET in families else families[0]
            found = list(dict.fromkeys(str(at[0]) for kind, _, _, _, at in answers if kind == family))
            # Of several the next one: at the one that was tried nobody was reached.
            last = self._found.get(host)
            self._found[host] = found[(found.index(last) + 1) % len(found)] if last in found else found[0]
        finally:
            self._asking.discard(host)
