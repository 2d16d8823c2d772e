"""What a socket tells of its connections, however much of it nobody has read."""

from __future__ import annotations

import subprocess
import sys

UNREAD = """
import socket
from meeseeks.wire import sockets

router = sockets.router()
port = sockets.bind(router, "127.0.0.1", 0)
monitor = sockets.listener_monitor(router)
for _ in range(1300):
    socket.create_connection(("127.0.0.1", port), 20).close()
sockets.close(router)
sockets.close(monitor)
sockets.terminate(0)
print("closed")
"""


def test_a_socket_is_closed_with_thousands_of_events_that_nobody_has_read() -> None:
    """ZeroMQ's own thread waited for a reader, and the reader for that thread: SIGTERM took ten seconds."""
    done = subprocess.run([sys.executable, "-c", UNREAD], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "closed\n", done.stderr
