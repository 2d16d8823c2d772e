"""`mks top`: the mesh live, and keys that do something to its jobs."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Self

import click

from meeseeks.errors import MeeseeksError

from .exits import OK
from .invocation import Invocation, address_option, debug_option
from .top_log import Log
from .top_model import Model
from .top_screen import Line, Screen
from .top_view import Panes, picture

if TYPE_CHECKING:
    from meeseeks import Client

__all__ = ["top_command"]

_FRAME_S = 0.2
_SHARE = 5
"""A look at the cache may take one in so many seconds, however many jobs there are."""
_FIRST_SYNC = 120.0
_MESSAGE_S = 5.0


@click.command("top")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
@address_option
@debug_option
@click.pass_obj
def top_command(call: Invocation, /, words: tuple[str, ...]) -> int:
    """Show the mesh live: nodes, pools, the jobs that run and wait, and those that ended last.

    \b
      x kill        h hold       r release      l follow its output (t: stderr, q: back)
      / filter      s sort       j k ↑ ↓ move   PgUp PgDn Home End   Tab the other list
      q quit

    A filter is as in 'mks ls'; a word alone is the beginning of an id. The node tells what changes, nothing is polled.
    'mks stat' shows the same once.
    """  # noqa: D301 - click looks for the character itself
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; 'mks stat' shows the same once")
    with call.client(refresh=0.5, poll=10, expire=120) as client:
        click.echo("reading the jobs …", err=True)
        client.wait(_FIRST_SYNC)
        model = Model(client)
        model.load_earlier()
        model.set_filter(" ".join(words))
        where = f"{next(iter(client.get_nodes()))} {repr(client).split(' of ')[1].split(',')[0]}"
        notes = _Notes()
        with notes, Screen() as screen:
            _Top(client, model, screen, notes, where).run()
    return OK


class _Notes(logging.Handler):
    """What the library would log on the screen, kept for the last line of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self.until = 0.0

    def __enter__(self) -> Self:
        logging.getLogger("meeseeks").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("meeseeks").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the thread that logs."""
        self.say(record.getMessage())

    def say(self, text: str) -> None:
        """Show this for some seconds."""
        self.text, self.until = text, time.monotonic() + _MESSAGE_S


class _Top:
    """The loop: keys, and at most five pictures a second."""

    def __init__(self, client: Client, model: Model, screen: Screen, notes: _Notes, where: str) -> None:
        self._client = client
        self._model = model
        self._screen = screen
        self._notes = notes
        self._where = where
        self._panes = Panes()
        self._log: Log | None = None
        self._typed: str | None = None  # the filter that is being typed
        self._victim: str | None = None  # the job that `x` was pressed for
        self._done = False
        self._actions = {
            "x": self._kill,
            "h": self._hold,
            "r": self._release,
            "l": self._follow,
            "enter": self._follow,
            "/": self._filter,
            "s": self._sort,
            "tab": model.switch,
            "q": self._quit,
        }

    def run(self) -> None:
        """Until the user has had enough."""
        pause = 0.0
        try:
            while True:
                began = time.monotonic()
                if self._log is None:
                    self._model.look()
                pause = max(_FRAME_S, (time.monotonic() - began) * _SHARE)
                self._draw()
                until = began + pause
                while (left := until - time.monotonic()) > 0:
                    for key in self._screen.keys(left):
                        self._on_key(key)
                    if self._done:
                        return
                    self._draw()
        finally:
            if self._log is not None:
                self._log.close()

    # --- what is shown

    def _draw(self) -> None:
        width, height = self._screen.width, self._screen.height
        if self._log is not None:
            self._screen.show(self._log.picture(height))
            return
        lines = picture(self._model, self._panes, width, height, self._footer(), self._where, time.time())
        self._screen.show(lines)

    def _footer(self) -> Line | None:
        if self._typed is not None:
            keys = "  Enter to use, Esc to leave it"
            return [("filter: ", "bold"), (self._typed, ""), (" ", "reverse"), (keys, "dim")]
        if self._victim is not None:
            return [(f"kill {self._victim}? y / n", "bold yellow")]
        if not self._client.connected:
            return [("the node does not answer: what is shown is how it was", "bold red")]
        if time.monotonic() < self._notes.until:
            return [(self._notes.text, "yellow")]
        return None

    # --- what is done

    def _on_key(self, key: str) -> None:
        if self._typed is not None:
            self._on_typed(key, self._typed)
        elif self._victim is not None:
            if key in ("y", "Y"):
                self._do("killed", self._victim, lambda jid: self._client.kill_jobs([jid]))
                self._model.stay()
            self._victim = None
        elif self._log is not None:
            self._on_log_key(key, self._log)
        elif key in _MOVES:
            self._model.move(_MOVES[key] * (self._panes.page if key.startswith("page") else 1))
        elif key in self._actions:
            self._actions[key]()

    def _on_typed(self, key: str, typed: str) -> None:
        if key == "escape":
            self._typed = None
        elif key == "enter":
            self._typed = None
            try:
                self._model.set_filter(typed)
            except MeeseeksError as error:
                self._notes.say(str(error))
            self._model.look()
        elif key == "backspace":
            self._typed = typed[:-1]
        elif key == "clear":
            self._typed = ""
        elif len(key) == 1 and key.isprintable():
            self._typed = typed + key

    def _on_log_key(self, key: str, log: Log) -> None:
        if key in ("q", "escape", "l"):
            log.close()
            self._log = None
            self._model.look()
        elif key == "t":
            log.close()
            self._log = Log(self._client, log.jid, "stderr" if log.stream == "stdout" else "stdout")

    def _selected(self) -> str | None:
        """The job that is pointed at."""
        if self._model.selected is None:
            self._notes.say("point at a job first, with j and k or the arrows")
        return self._model.selected

    def _selected_live(self) -> str | None:
        """The same, if it has not ended."""
        jid = self._selected()
        if jid is not None and self._model.has_ended(jid):
            self._notes.say(f"{jid} has ended")
            return None
        return jid

    def _do(self, what: str, jid: str, act: object) -> None:
        assert callable(act)
        try:
            act(jid)
        except MeeseeksError as error:
            self._notes.say(str(error))
        else:
            self._notes.say(f"{jid} is {what}")
        self._model.look()

    def _kill(self) -> None:
        self._victim = self._selected_live()

    def _hold(self) -> None:
        if jid := self._selected_live():
            info = self._model.infos([jid]).get(jid)
            if info is not None and info["state"] == "running":
                self._notes.say(f"{jid} runs already: only what waits can be held")
                return
            self._do("on hold", jid, lambda one: self._client.submit_job(id=one, hold=True))

    def _release(self) -> None:
        if jid := self._selected_live():
            self._do("released", jid, lambda one: self._client.submit_job(id=one, hold=False))

    def _follow(self) -> None:
        if jid := self._selected():
            self._log = Log(self._client, jid)

    def _filter(self) -> None:
        self._typed = self._model.filter

    def _sort(self) -> None:
        self._model.next_sort()
        self._model.look()

    def _quit(self) -> None:
        self._done = True


_FAR = 10**9
_MOVES = {"j": 1, "down": 1, "k": -1, "up": -1, "page down": 1, "page up": -1}
_MOVES |= {"home": -_FAR, "g": -_FAR, "end": _FAR, "G": _FAR}
