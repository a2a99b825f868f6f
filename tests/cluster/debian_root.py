"""Executes a Dockerfile in an empty Debian root, where no registry of images can be reached."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DebianRoot", "build", "missing_tools"]

# The root sees no process, no /tmp and no shared memory of this machine, and no network but its
# own if so asked; all that was started there ends with the command.
HOST = "/run/host"  # where the root finds files of this machine
ENTER = f"""
set -e
mount --make-rprivate /
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
mkdir -p "$ROOT/dev/shm"
mount -t tmpfs none "$ROOT/dev/shm"
mount -t tmpfs none "$ROOT/tmp"
mount -t tmpfs none "$ROOT/run"
chmod 1777 "$ROOT/tmp" "$ROOT/dev/shm"
for path in $READ_ONLY; do
  there="$ROOT{HOST}$path"
  mkdir -p "$(dirname "$there")"
  if [ -d "$path" ]; then mkdir -p "$there"; else touch "$there"; fi
  mount --bind -o ro "$path" "$there"
done
[ -z "$OWN_NETWORK" ] || ip link set lo up
exec chroot "$@"
"""


def missing_tools() -> str:
    """Which of the tools is not there; empty if all are."""
    if os.geteuid() != 0:
        return "root"
    wanted = ("debootstrap", "chroot", "unshare", "ip")
    return next((tool for tool in wanted if not shutil.which(tool)), "")


@dataclass
class DebianRoot:
    """What an image's file system, environment, folder and user are."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "root"

    def run(
        self,
        script: str,
        *,
        own_network: bool = False,
        timeout: float = 1800,
        **environment: str,
    ) -> tuple[int, str]:
        """Run a shell script; its exit code, and what it printed.

        Args:
            script: for sh, as in RUN.
            own_network: whether it has a network of its own, which is loopback alone.
            timeout: in seconds.
            environment: added to the image's.
        """
        settings, paths = pip_settings()
        command = ["unshare", "--mount", "--pid", "--fork"]
        command += ["--net"] if own_network else []
        command += ["bash", "-c", ENTER, "enter", f"--userspec={self.user}", str(self.path)]
        told = {"HOME": self._home(), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        told |= ({} if own_network else settings) | self.environment | environment
        inside = f"cd {shlex.quote(self.folder)} && {script}"
        command += ["env", "-i", *(f"{name}={value}" for name, value in told.items())]
        process = subprocess.Popen(
            [*command, "sh", "-c", inside],
            env=os.environ
            | {
                "ROOT": str(self.path),
                "READ_ONLY": " ".join(paths),
                "OWN_NETWORK": "yes" if own_network else "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # All of it: another user's process does not end with its parent, as --kill-child says.
            os.killpg(process.pid, signal.SIGKILL)
            return 124, process.communicate()[0]
        return process.returncode, output

    def _home(self) -> str:
        lines = (self.path / "etc/passwd").read_text().splitlines()
        return next(line.split(":")[5] for line in lines if line.startswith(f"{self.user}:"))


def build(dockerfile: Path, context: Path, root: Path) -> DebianRoot:
    """Execute each step of a Dockerfile.

    Args:
        dockerfile: what it may contain is what `_step` knows; anything else is an error.
        context: the folder that COPY copies from.
        root: the folder that becomes the image's file system.

    Raises:
        AssertionError: a step failed; the message has its output.
    """
    image = DebianRoot(root)
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            _step(image, context, *line.strip().split(None, 1))
    return image


def _step(image: DebianRoot, context: Path, instruction: str, rest: str) -> None:
    if instruction == "FROM":
        release = re.fullmatch(r"debian:(\w+)-slim", rest)
        assert release, f"FROM {rest}: only Debian can be made here"
        _bootstrap(release[1], image.path)
    elif instruction == "RUN":
        code, output = image.run(rest)
        assert code == 0, f"RUN {rest}\n{output}"
    elif instruction == "ENV":
        image.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
    elif instruction == "WORKDIR":
        image.folder = rest
        (image.path / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif instruction == "USER":
        image.user = rest
    elif instruction == "COPY":
        *sources, target = shlex.split(rest)
        folder = image.path / os.path.join(image.folder, target).lstrip("/")
        for source in sources:
            if (context / source).is_dir():
                hidden = shutil.ignore_patterns("__pycache__")
                shutil.copytree(context / source, folder, dirs_exist_ok=True, ignore=hidden)
            else:
                shutil.copy(context / source, folder)
    else:
        raise AssertionError(f"{instruction} {rest}: not known here")


def _bootstrap(release: str, root: Path) -> None:
    command = ["debootstrap", "--variant=minbase", release, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # As a container gets them from its engine.
    for name in ("etc/resolv.conf", "etc/hosts"):
        shutil.copy(Path("/", name), root / name)


def pip_settings() -> tuple[dict[str, str], list[str]]:
    """What pip on this machine is set to, as environment variables, and the files and folders
    that these settings name: the root gets its packages from where this machine does."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings, paths = {}, set()
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        words = []
        for word in ast.literal_eval(value).split():
            url = urllib.parse.urlparse(word)
            if url.scheme in {"", "file"} and Path(url.path).is_absolute():
                # The pages of an index link to files beside it.
                paths.add(str(Path(url.path).parent) if url.scheme else url.path)
                words.append(word.replace(url.path, f"{HOST}{url.path}"))
            else:
                words.append(word)
        variable = name.rpartition(".")[2].upper().replace("-", "_")
        settings[f"PIP_{variable}"] = " ".join(words)
    return settings, sorted(paths)


if __name__ == "__main__":
    made = build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps({"user": made.user, "folder": made.folder, **made.environment}))
