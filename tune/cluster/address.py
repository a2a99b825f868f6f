"""The address of a Ray cluster: which one is meant, whether it answers, and how it is to be asked.

Ray itself asks again and again for minutes, and prints what its libraries report meanwhile. So a
process that is ended in time asks first.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from magtkd.errors import SweepError, shorten
from tune.redact import redact

__all__ = ["RunningCluster", "find_cluster", "in_mode", "keep_token_private"]

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 6
START_SECONDS = 60.0
"""How long a loaded machine may take to load Ray in the process that asks."""
TOKEN_FILE = Path("~/.ray/auth_token")
UNAUTHENTICATED = 3
# The alarm ends the process wherever Ray's libraries wait in it.
_ASK = f"""
import json, signal, sys
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
signal.alarm({ANSWER_SECONDS})
try:
    client = GcsClient(address=sys.argv[1])
    metadata = get_cluster_metadata(client) or {{}}
except AuthenticationError:
    sys.exit({UNAUTHENTICATED})
print(json.dumps([metadata.get("ray_version"), metadata.get("python_version")]))
"""


@dataclass(frozen=True)
class RunningCluster:
    """A cluster that answers."""

    address: str
    """HOST:PORT."""
    mode: str
    """Ray's authentication mode there: `token` or `disabled`."""


def find_cluster(
    address: str, note: Callable[[str], None], given_by: str = "--address"
) -> RunningCluster:
    """The cluster at an address, once it has answered.

    Args:
        address: HOST:PORT, or `auto` for the one that runs on this machine.
        note: called with one line where several run on this machine.
        given_by: the option or variable that gave it.

    Raises:
        SweepError: there is none, it does not answer, or it does not accept this user's token.
    """
    given = f"{given_by} {shorten(redact(address))}"
    if "://" in address:
        raise SweepError(
            f"{given}: Ray's client would run the search on another machine; "
            "start magtkd on a node of the cluster, with --address auto"
        )
    place = address
    if address == "auto":
        place = _running_here(given, note)
        given = f"{given}: {place}"
    host, port = _parsed(given, place)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SweepError(
            f"{given}: cannot be reached: {reason}; start Ray there, or "
            "give no address to use this machine"
        ) from None
    mode, answer = "disabled", _ask(place, "disabled")
    if answer.returncode == UNAUTHENTICATED:
        mode, problem = "token", _missing_token()
        answer = answer if problem else _ask(place, "token")
        if answer.returncode == UNAUTHENTICATED:
            raise SweepError(
                f"{given}: {problem or _refused_token()}; copy {TOKEN_FILE} from where "
                "`ray start --head` ran, or name that file in RAY_AUTH_TOKEN_PATH, or its content "
                "in RAY_AUTH_TOKEN (on other nodes: RAY_AUTH_MODE=token ray start)"
            )
    if answer.returncode:
        raise SweepError(
            f"{given}: does not answer as Ray does; give the port that `ray start --head` printed"
        )
    _check_versions(given, *json.loads(answer.stdout.splitlines()[-1]))
    return RunningCluster(place, mode)


@contextlib.contextmanager
def in_mode(mode: str) -> Iterator[None]:
    """This process, and those that it starts, talk to Ray in an authentication mode for as long as
    the block lasts. Ray does the same for an address that it finds itself, but not for one that it
    is given."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    before = os.environ.get("RAY_AUTH_MODE")
    os.environ["RAY_AUTH_MODE"] = mode
    Config.initialize("")  # it was read from the environment when Ray was loaded
    try:
        yield
    finally:
        os.environ.pop("RAY_AUTH_MODE")
        if before is not None:
            os.environ["RAY_AUTH_MODE"] = before
        Config.initialize("")


def keep_token_private() -> None:
    """Let no other user read the token: Ray writes it as the umask has it."""
    try:
        path = TOKEN_FILE.expanduser()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except (OSError, RuntimeError):  # there is none, or no home
        pass


def _running_here(given: str, note: Callable[[str], None]) -> str:
    """The cluster that runs on this machine: the one that was started last, where that is known."""
    from ray._private import services

    running = sorted(services.find_gcs_addresses())
    last = services.find_bootstrap_address(None)
    if len(running) > 1 and last not in running:
        raise SweepError(
            f"{given}: several Ray clusters run on this machine: {', '.join(running)}; name "
            "one of them"
        )
    if len(running) > 1:
        others = ", ".join(one for one in running if one != last)
        note(f"{given}: {last}, which was started last; also on this machine: {others}")
    if running:
        return str(last) if last in running else running[0]
    if last:
        return str(last)
    raise SweepError(f"{given}: no Ray runs on this machine; start one, or give its HOST:PORT")


def _parsed(given: str, place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SweepError(
            f"{given}: not an address; give HOST:PORT, or auto for the Ray that "
            "runs on this machine"
        )
    return host.strip("[]"), int(port)


def _ask(place: str, mode: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-P", "-c", _ASK, place],
            env=os.environ | {"RAY_AUTH_MODE": mode},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 1, "", "")


def _missing_token() -> str:
    """Why there is no token where Ray looks for one; Ray aborts a process that is to send one."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_ENABLE_K8S_TOKEN_AUTH"):
        return ""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if _has_content(Path(path) if path else TOKEN_FILE.expanduser()):
        return ""
    if path:
        return f"asks for a token, and RAY_AUTH_TOKEN_PATH names no file, but {shorten(path)}"
    return "asks for a token"


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _refused_token() -> str:
    """Which token is not accepted: where Ray looks, in its order."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "does not accept the token in RAY_AUTH_TOKEN"
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return f"does not accept the token in {shorten(path)}, which RAY_AUTH_TOKEN_PATH names"
    return f"does not accept the token in {TOKEN_FILE}"


def _check_versions(given: str, ray_there: str | None, python_there: str | None) -> None:
    """Ray's own check knows no way out, and needs many lines."""
    import ray

    level = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch")
    num_parts = 2 if level == "minor" else 3  # as Ray's own check
    for name, there, here in (
        ("Ray", ray_there, ray.__version__),
        ("Python", python_there, ".".join(map(str, sys.version_info[:3]))),
    ):
        if there is not None and there.split(".")[:num_parts] != here.split(".")[:num_parts]:
            raise SweepError(
                f"{given}: the cluster has {name} {there}, and this machine {here}; use "
                "the same on both"
            )
