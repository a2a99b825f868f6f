"""The documentation: its words, its links, and the files that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
DIALECT = re.compile(r"\b(told|tells|hears?|heard|lies|nobody|goes? on|says so)\b", re.IGNORECASE)
"""Words that stood for: reported, reports, receives, is in, none, continues, states it."""
LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
NAMED = re.compile(r"`((?:tune|magtkd|tests|benchmarks|experiments|docs)/[\w./-]+)`")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page outside its code blocks, numbered from 1."""
    in_code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = (line.lstrip("# ") for _, line in prose(path) if line.startswith("#"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_the_words_are_those_of_the_field(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r} in: {line.strip()}"
        for number, line in enumerate(lines, start=1)
        if (match := DIALECT.search(line))
    ]
    assert not found, "use the words of the field:\n" + "\n".join(found)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for number, line in prose(path):
        for link in LINK.finditer(line):
            target = (path.parent / link["path"]).resolve() if link["path"] else path
            place = f"{path.relative_to(ROOT)}:{number}: {link[0]}"
            assert target.exists(), place
            # Those of the API reference are made when the site is built, which checks them.
            if link["anchor"] and target.suffix == ".md" and target.parent.name != "api":
                assert link["anchor"] in anchors(target), place


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_files_that_are_named_exist(path: Path) -> None:
    for number, line in prose(path):
        for name in NAMED.findall(line):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)}:{number}: {name}"


NOT_RUN = {"AWS", "Kubernetes"}
"""Sections of docs/cluster.md whose commands need a cloud, a registry of images or Kubernetes."""


def test_the_commands_of_the_page_of_clusters_are_run() -> None:
    """A test under tests/cluster takes them from the page, section by section."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    with_commands = {
        name for name, text in zip(parts[1::2], parts[2::2], strict=True) if "```sh" in text
    }
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "cluster").glob("test_*.py"))
    run = set(re.findall(r"""\bcommands\("(.+?)"\)""", tests))
    assert run | NOT_RUN == with_commands
    assert not run & NOT_RUN
