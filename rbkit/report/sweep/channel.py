"""JSON objects, a line each, over a socket: how launcher, nursery and workers talk."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import Any

Message = dict[str, Any]


class Channel:
    """One end of a connection.

    Examples
    --------
    >>> ours, theirs = Channel.pair()
    >>> _ = ours.send({"say": "interrupt"}); theirs.receive()
    {'say': 'interrupt'}
    >>> ours.close(); theirs.receive() is None
    True
    >>> theirs.close()
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""
        self._lock = threading.Lock()  # a worker speaks from two threads
        self.ended = False  # the other end is closed: by itself, or by the death of its process

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Make both ends."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """Return the number by which ``select`` knows it."""
        return self.socket.fileno()

    def send(self, message: Message) -> bool:
        """Send; whether anybody was there to send to."""
        data = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self.socket.sendall(data)
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """Wait for the next message; None when there will be no more."""
        while b"\n" not in self._rest and not self.ended:
            self._take()
        return self._next()

    def pending(self) -> list[Message]:
        """Return what has arrived, after a ``select`` that said so."""
        self._take()
        return self._all()

    def rest(self) -> list[Message]:
        """Return what a process that has ended still said."""
        while not self.ended:
            self._take()
        return self._all()

    def hang_up(self) -> None:
        """Say no more, but go on listening: the other end sees this one as closed."""
        with suppress(OSError):  # it is closed already
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end: the other one sees that."""
        self.socket.close()

    def _take(self) -> None:
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.ended = not data
        self._rest += data

    def _next(self) -> Message | None:
        line, newline, rest = self._rest.partition(b"\n")
        if not newline:
            return None
        self._rest = rest
        message: Message = json.loads(line)
        return message

    def _all(self) -> list[Message]:
        found = []
        while (message := self._next()) is not None:
            found.append(message)
        return found
