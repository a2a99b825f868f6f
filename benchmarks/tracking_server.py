"""A real `mlflow server`, which answers as slowly as one far away.

python benchmarks/tracking_server.py 5001 5000 0.2      # the delay alone: 5001 in front of 5000
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

__all__ = ["tracking_server"]

NUM_ATTEMPTS = 600


@contextlib.contextmanager
def tracking_server(folder: Path, latency: float = 0.0) -> Iterator[str]:
    """The address of a server on an SQLite file, each of whose answers takes `latency` more."""
    port, front = _free_port(), _free_port()
    options = {
        "--backend-store-uri": f"sqlite:///{folder}/server.db",
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    words = [word for pair in options.items() for word in pair]
    # Else it runs eight more processes, for what no sweep uses.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    delay = [str(Path(__file__).resolve()), str(front), str(port), str(latency)]
    with (folder / "server.log").open("wb") as log, contextlib.ExitStack() as stack:
        for command in (["-m", "mlflow", "server", *words], delay):
            process = subprocess.Popen(
                [sys.executable, *command], stdout=log, stderr=log, env=environment
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        address = f"http://127.0.0.1:{front}"
        _wait_for(f"{address}/health")
        yield address


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(url: str) -> None:
    for _ in range(NUM_ATTEMPTS):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url}: no answer")


# --- the delay --------------------------------------------------------------------------------


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    """Pass bytes on, each of them `latency` seconds after it came."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        while data := await reader.read(1 << 16):
            waiting.put_nowait((loop.time() + latency, data))
        waiting.put_nowait((0.0, b""))

    reading = asyncio.create_task(read())
    with contextlib.suppress(OSError):
        while True:
            due, data = await waiting.get()
            if not data:
                break
            await asyncio.sleep(due - loop.time())
            writer.write(data)
            await writer.drain()
    reading.cancel()
    writer.close()


async def _serve(front: int, port: int, latency: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pipe(reader, ahead, latency), _pipe(behind, writer, 0.0))

    server = await asyncio.start_server(connected, "127.0.0.1", front)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
