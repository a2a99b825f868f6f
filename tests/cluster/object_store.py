"""An object store on this machine: moto's server, behind a proxy that can be told to fail."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

__all__ = ["BUCKET", "FailingProxy", "MotoServer", "free_port"]

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "ann",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_ERRORS = {
    "500": ("500 Internal Server Error", "InternalError", "We encountered an internal error"),
    "503": ("503 Service Unavailable", "SlowDown", "Please reduce your request rate"),
    "403": ("403 Forbidden", "AccessDenied", "Access Denied"),
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class MotoServer:
    """`moto_server` with one bucket, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        # The signature is not checked, but the client must have something to sign with.
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with (folder / "moto.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | CREDENTIALS,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while not self._make_bucket():
            assert self._process.poll() is None, (folder / "moto.log").read_text()
            assert time.monotonic() < end, "moto's server does not answer"
            time.sleep(0.1)

    def _make_bucket(self) -> bool:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{BUCKET}", method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except OSError:
            return False

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class FailingProxy:
    """Passes connections on to a server, or does what `mode` says:

    `pass`, `reset` (each connection is reset), `500`, `503` and `403` (each request is answered
    so), `hang` (nothing is answered), `slow` (each answer comes a second late).
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target, self._host = port, host
        self._mode = "pass"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server((host, 0))
        self.port = int(self._server.getsockname()[1])
        self.num_refused = 0
        """Connections that were not passed on."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        """Those that are open end, so that the mode holds for everyone at once."""
        self._mode = mode
        with self._lock:
            still, self._open = self._open, set()
        for one in still:
            _reset(one)

    def address(self, prefix: str) -> str:
        """The address of a prefix in the bucket, for a `--storage`."""
        return (
            f"s3://{BUCKET}/{prefix}?scheme=http&endpoint_override={self._host}:{self.port}"
            "&region=us-east-1"
        )

    def close(self) -> None:
        self._server.close()
        self.mode = "reset"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client, self._mode), daemon=True).start()

    def _serve(self, client: socket.socket, mode: str) -> None:
        self.num_refused += mode not in {"pass", "slow"}
        try:
            if mode in {"pass", "slow"}:
                self._pass_on(client, 1.0 if mode == "slow" else 0.0)
            elif mode == "hang":
                time.sleep(600)
            elif mode == "reset":
                _reset(client)
            else:
                _answer(client, *_ERRORS[mode])
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            with contextlib.suppress(OSError):
                client.close()

    def _pass_on(self, client: socket.socket, delay: float) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            with self._lock:
                self._open.add(server)
            back = threading.Thread(target=_copy, args=(server, client, delay), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
            with self._lock:
                self._open.discard(server)


def _copy(source: socket.socket, target: socket.socket, delay: float = 0.0) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            time.sleep(delay)
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Another thread may be waiting in recv, which close alone would not wake.
        connection.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        connection.close()


def _answer(client: socket.socket, status: str, code: str, message: str) -> None:
    """Read each request with its body, and answer it with one of the store's errors."""
    stream: Any = client.makefile("rb")
    while head := stream.readline():
        length, is_awaited = 0, False
        while (line := stream.readline().strip().lower()) not in {b""}:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            is_awaited |= name == b"expect"
        if not is_awaited:
            stream.read(length)
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        answer = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        client.sendall(answer + (b"" if head.startswith(b"HEAD") else body))
        return
