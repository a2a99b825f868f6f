"""Paths out of data files stay inside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.data.paths import inside
from magtkd.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "clips").mkdir(parents=True)
    (tmp_path / "secret.wav").write_text("")
    return folder


@pytest.mark.parametrize(
    ("relative", "file"),
    [
        ("a.wav", "a.wav"),
        ("clips/dia0_utt1.mp4", "clips/dia0_utt1.mp4"),
        ("clips\\dia0_utt1.mp4", "clips/dia0_utt1.mp4"),
        ("./clips/../a.wav", "a.wav"),
        ("..a/b..wav", "..a/b..wav"),
        ("Café 1.wav", "Café 1.wav"),
    ],
)
def test_a_path_below_the_folder(root: Path, relative: str, file: str) -> None:
    assert inside(root, relative) == root / file


@pytest.mark.parametrize(
    ("relative", "why"),
    [
        ("", "is not the name of a file"),
        ("  ", "is not the name of a file"),
        ("a\0.wav", "is not the name of a file"),
        ("/etc/passwd", "is absolute"),
        ("\\etc\\passwd", "is absolute"),
        ("C:\\a.wav", "is absolute"),
        ("C:a.wav", "is absolute"),
        ("//host/share/a.wav", "is absolute"),
        ("..", "leads out of it"),
        (".", "leads out of it"),
        ("../secret.wav", "leads out of it"),
        ("clips/../../secret.wav", "leads out of it"),
        ("clips\\..\\..\\secret.wav", "leads out of it"),
        ("../corpus-other/a.wav", "leads out of it"),
    ],
)
def test_a_path_that_is_none(root: Path, relative: str, why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        inside(root, relative)
    assert str(caught.value).startswith(f"{root}: the path {relative!a} ")
    assert str(caught.value).isprintable()


def test_links(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "clips")
    (root / "circle").symlink_to(root / "circle")
    assert inside(root, "in/a.wav") == root / "clips/a.wav"
    for relative in ("out/secret.wav", "in/../../secret.wav", "in/../out/corpus-2/a"):
        with pytest.raises(DataError, match="leads out of it"):
            inside(root, relative)
    with pytest.raises(DataError, match=r"is a link to itself|leads out of it"):
        inside(root, "circle/a.wav")


def test_the_folder_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert inside(tmp_path / "link", "a.wav") == root / "a.wav"


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "\\", "/", "C:", "~"]), max_size=7))
def test_never_outside(parts: list[str]) -> None:
    root = Path("/nowhere/corpus")
    try:
        path = inside(root, "/".join(parts))
    except DataError:
        return
    assert path.is_relative_to(root)
    assert path != root
