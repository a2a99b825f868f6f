"""The blocks of the README, and of the page that continues it, run as they stand and in their
order, in a folder with a virtual environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/getting-started.md")
BLOCK = re.compile(
    r"(?P<comment>^<!-- not run: [^\n]+ -->\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MAKE = {"make quickstart", "make test"}
TIMEOUT_SECONDS = 240


@dataclass(frozen=True)
class Block:
    """A fenced block; `place` is its page and the line where its body begins."""

    language: str
    body: str
    place: str
    is_run: bool

    @property
    def commands(self) -> set[str]:
        """The lines of a shell block without their comments."""
        return {line.split("  #")[0].strip() for line in self.body.splitlines()}


def find_blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            place = f"{page}:{text.count(chr(10), 0, match.start('body')) + 1}"
            yield Block(match["language"], match["body"], place, match["comment"] is None)


def run_block(block: Block, folder: Path) -> str:
    """Run a shell or a Python block, or save a YAML block under the name in its first line.

    Returns:
        its standard output.
    """
    if block.language == "yaml":
        name = re.match(r"# ([\w-]+\.yaml)\n", block.body)
        assert name is not None, f"{block.place}: the block does not begin with its name"
        (folder / name[1]).write_text(block.body, encoding="utf-8")
        return ""
    shell = ["bash", "-e", "-u", "-o", "pipefail", "-c"]
    command = shell if block.language == "sh" else [sys.executable, "-c"]
    process = subprocess.Popen(
        [*command, block.body],
        cwd=folder,
        env=environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, f"{block.place}: exit {process.returncode}\n{err}"
    return out


def environment() -> dict[str, str]:
    """This process's environment with its scripts first on PATH, and with no server to ask."""
    scripts = Path(sys.executable).parent
    unset = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "COLUMNS", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return kept | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


def shapes(output: str) -> set[str]:
    """The lines of an output without what varies: numbers, widths of columns, folders."""
    output = re.sub(r"sqlite:\S+", "sqlite:", output)
    output = re.sub(r"\d+(\.\d+)?(e-\d+)?", "#", output)
    return {re.sub(r"([ ━─])\1*", r"\1", line.strip()) for line in output.splitlines()}


def test_the_make_commands_come_first() -> None:
    first = next(block for block in find_blocks() if block.language == "sh")
    assert first.commands == MAKE


def test_every_block_runs_and_prints_what_its_page_shows(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    printed, languages = "", set()
    for block in find_blocks():
        if block.language == "text":
            # A diagram follows no command; all else shows what the commands before it printed.
            unseen = shapes(block.body) - shapes(printed) if printed else set()
            assert not unseen, f"{block.place}: not printed:\n" + "\n".join(unseen)
        elif block.is_run and not block.commands <= MAKE:
            assert block.language in {"sh", "yaml", "python"}, f"{block.place}: unknown"
            printed = run_block(block, tmp_path) or printed
            languages.add(block.language)
    assert languages == {"sh", "yaml", "python"}


def test_a_command_that_fails_fails_the_block(tmp_path: Path) -> None:
    block = Block("sh", "magtkd trials no-such-sweep\ntrue\n", "README.md:1", True)
    with pytest.raises(AssertionError, match=r"README.md:1: exit 2\s+magtkd: .*no-such-sweep"):
        run_block(block, tmp_path)


def test_only_what_needs_a_server_a_release_or_minutes_is_left_out() -> None:
    skipped = [block.commands for block in find_blocks() if not block.is_run]
    assert [min(commands).split("  ")[0] for commands in skipped] == [
        "mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///magtkd-results/mlflow.db",
        "magtkd confirm toy --top 3 --seeds 5",
        "magtkd table experiments/paper_mosi.yaml data.MOSI.path=mosi.parquet",
        "magtkd data convert MELD.Raw --out meld.parquet --on-missing keep",
    ]
