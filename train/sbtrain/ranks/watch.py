"""Ends a rank whose peers are gone: a connection from each to the first, on which nothing is said until the end.

The kernel closes the connections of a process however it dies, so the others know within milliseconds, whatever they are
waiting for: a collective of NCCL would wait for half an hour, and Python handles no signal while it does. A machine
that lost its power closes nothing; keep-alive probes find it within half a minute.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sbformat.errors import SplitbrainError
from sbtrain.ranks.meeting import RankError

#: Seconds for all ranks to connect, when they have already met.
CONNECT = 60.0
#: Seconds for who has connected to say who it is; a stranger that says nothing is left alone then.
HELLO = 2.0
#: Seconds that an error of torch's waits for the news that a peer is gone, which would be its cause.
SETTLE = 2.0
_HELLO = 36  # bytes: 32 of the job's token, 4 of the rank


class Watch:
    """Connections between the first rank and every other one.

    Parameters
    ----------
    rank, size : int
    from_first : callable
        Called on every rank with a JSON value, returns the first rank's.
    """

    def __init__(self, rank: int, size: int, from_first: Callable[[Any], Any]) -> None:
        self._rank, self._size = rank, size
        self._closing = False
        self._peers = self._accept(from_first) if rank == 0 else self._connect(from_first)
        for peer, connection in self._peers.items():
            _probe(connection)
            threading.Thread(target=self._listen, args=(peer, connection), daemon=True).start()

    def close(self) -> None:
        """Say goodbye: every rank has come this far."""
        self._closing = True
        for connection in self._peers.values():
            self._tell(connection, {})
            connection.close()

    def fail(self, error: BaseException) -> None:
        """Tell the others why this rank ends, unless another one's end is the reason: then this one ends here."""
        if isinstance(error, RuntimeError):  # torch's own, as where a peer has closed its connection
            time.sleep(SETTLE)
        self._closing = True
        text = str(error) if isinstance(error, SplitbrainError) else f"{type(error).__name__} {error}".strip()
        for connection in self._peers.values():
            self._tell(connection, {"rank": self._rank, "text": text})

    def _listen(self, peer: int, connection: socket.socket) -> None:
        content = b""
        with suppress(OSError):  # reset, or no answer to the probes: gone as well
            while part := connection.recv(1 << 16):
                content += part
                if content.endswith(b"\n"):
                    break
        if self._closing:
            return
        told = json.loads(content) if content.endswith(b"\n") else {"rank": peer, "text": None}
        if told:
            self._end(told)

    def _end(self, told: dict[str, Any]) -> None:
        if self._rank == 0:
            for connection in self._peers.values():
                self._tell(connection, told)
        why = told["text"] or "it died: killed, out of memory, or its machine is gone"
        line = (
            f"rank {told['rank']} of {self._size} has ended: {why.rstrip('.')}. So rank {self._rank} ends too; the same command goes on "
            f"from the newest checkpoint\n"
        )
        sys.stderr.write(line)
        sys.stderr.flush()
        # The main thread may wait for a dead peer in a way that nothing interrupts. A checkpoint that is being written
        # stays invisible, as after any kill.
        os._exit(1)

    def _tell(self, connection: socket.socket, message: dict[str, Any]) -> None:
        with suppress(OSError):  # gone already
            connection.sendall(json.dumps(message).encode() + b"\n")

    def _accept(self, from_first: Callable[[Any], Any]) -> dict[int, socket.socket]:
        token, peers = secrets.token_hex(16), dict[int, socket.socket]()
        with _listening() as server:
            from_first([server.getsockname()[1], token])
            deadline = time.monotonic() + CONNECT
            while len(peers) < self._size - 1:
                try:
                    server.settimeout(max(deadline - time.monotonic(), 0.01))
                    connection, _ = server.accept()
                except OSError as error:
                    raise RankError(self._missing_text(peers)) from error
                if (peer := _peer(connection, token)) is None:
                    connection.close()
                else:
                    peers[peer] = connection
        return peers

    def _missing_text(self, peers: dict[int, socket.socket]) -> str:
        missing = ", ".join(str(rank) for rank in range(1, self._size) if rank not in peers)
        return (
            f"rank 0 of {self._size}: of the ranks that had met, {missing} did not connect within {CONNECT:.0f} s. Have they "
            f"died, or does a firewall between the machines let only some ports through?"
        )

    def _connect(self, from_first: Callable[[Any], Any]) -> dict[int, socket.socket]:
        port, token = from_first(None)
        try:
            connection = socket.create_connection((os.environ["MASTER_ADDR"], port), CONNECT)
            connection.sendall(token.encode() + self._rank.to_bytes(4))
        except OSError as error:
            raise RankError(
                f"rank {self._rank} of {self._size}: rank 0 does not answer at {os.environ['MASTER_ADDR']}:{port} ({error}). Has "
                f"it died, or does a firewall between the machines let only some ports through?"
            ) from error
        return {0: connection}


def end_with_launcher() -> None:
    """Have Linux send this process TERM where torchrun is killed, which then cannot: it saves, and ends."""
    # Of other launchers nobody knows whether they start ranks in a thread that goes on living, which this asks for.
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG


def _peer(connection: socket.socket, token: str) -> int | None:
    """Return the rank of who has connected; None: not of this job."""
    with suppress(OSError):
        connection.settimeout(HELLO)
        hello = connection.recv(_HELLO, socket.MSG_WAITALL)
        if len(hello) == _HELLO and secrets.compare_digest(hello[:32], token.encode()):
            return int.from_bytes(hello[32:])
    return None


@contextmanager
def _listening() -> Iterator[socket.socket]:
    family, *_, address = socket.getaddrinfo(os.environ["MASTER_ADDR"], 0, type=socket.SOCK_STREAM)[0]
    try:
        server = socket.create_server(address[:2], family=family)
    except OSError:  # its name is not one of this machine's own addresses, as behind some routers
        server = socket.create_server(("", 0))
    with server:
        yield server


def _probe(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
