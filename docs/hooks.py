"""Hooks of the site: pages that are files elsewhere in the repository, and links to them.

Every page is written for the repository: its links are relative paths to files there. On the site
a link leads to the page that the file became, or to a copy of the file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Files outside docs/, and the pages that they become."""

_LINK = re.compile(r"\]\((?!\w+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links of the site."""
    sources = {to: source for source, to in PAGES.items()}
    place = page.file.src_uri
    folder = posixpath.dirname(sources.get(place, f"docs/{place}"))

    def rewrite(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link["path"]))
        on_site = PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(on_site) is None and (ROOT / target).is_file():
            files.append(File.generated(config, on_site, abs_src_path=str(ROOT / target)))
        path = posixpath.relpath(on_site, posixpath.dirname(place) or ".")
        return f"]({path}{link['anchor'] or ''})"

    return _LINK.sub(rewrite, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Fail where a page would ask the network for something."""
    for path in Path(config.site_dir).rglob("*.html"):
        found = re.search(r"(?:src|<link[^>]*href)=\"https?://", path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found[0] if found else ''} loads from the network"
