"""Configurations in files: reading, `extends`, overrides, writing."""

from __future__ import annotations

import io
import os
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from pydantic import BaseModel
from yaml.error import MarkedYAMLError

from magtkd.config.checks import validate
from magtkd.config.sections import Config
from magtkd.errors import ConfigError, first_line, shorten

__all__ = ["dump_yaml", "file_schema", "load_config", "override", "read_config_file"]

ConfigT = TypeVar("ConfigT", bound=Config)

_PATHS = {("data", "path"), ("data", "media"), ("fusion", "initial")}
"""Values that are paths, relative to the file or command line that gives them."""


# OmegaConf is loaded where it is used: it is a third of what a trial's process, which reads no
# file, imports beside Ray.


DEEPEST = 100
"""Levels that a file has, and files that extend each other: more are a mistake, and would exhaust
the stack."""
_ODD_NUMBERS = re.compile(
    r"""[-+]?0[0-9_]+                                 # 010 is 8 in YAML 1.1, and 10 in YAML 1.2
    |   [-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?   # 1:30 is 90 in YAML 1.1""",
    re.VERBOSE,
)


class _OddError(MarkedYAMLError):  # type: ignore[misc]
    """Valid YAML that is refused all the same."""


def _check_tokens(text: str) -> None:
    """Refuse what would be read as something else, or could not be read at all.

    Raises:
        YAMLError: the text is no YAML, too deep, or has a number that versions of YAML differ on.
    """
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, _STARTS):
            depth += 1
        elif isinstance(token, _ENDS):
            depth -= 1
        problem = f"it is nested deeper than {DEEPEST} levels" if depth > DEEPEST else None
        is_plain = isinstance(token, yaml.ScalarToken) and token.plain
        if is_plain and _ODD_NUMBERS.fullmatch(token.value):
            problem = (
                f"{shorten(token.value)} is another number in each version of YAML; write it "
                "without a leading 0 or colons, or quote it"
            )
        if problem:
            raise _OddError(problem=problem, problem_mark=token.start_mark)


_STARTS = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_ENDS = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def _read_yaml(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"{path}: cannot read the configuration: {reason}; give the path of a YAML file"
        ) from None
    try:
        _check_tokens(text)
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        what = "" if isinstance(error, _OddError) else "not valid YAML: "
        raise ConfigError(f"{path}{line}: {what}{problem}") from None
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {first_line(error)}") from None
    except OSError:  # OmegaConf's word for a file that is one number
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: the top level is not a mapping; write sections such as `fusion: {{depth: 2}}`"
        )
    return typing.cast(dict[str, Any], tree)


def file_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a file: that of its model, and `extends`."""
    schema = model.model_json_schema()
    extends = {
        "description": "Another file, relative to this one, whose values this one changes.",
        "title": "Extends",
        "type": "string",
    }
    return schema | {"properties": {"extends": extends} | schema["properties"]}


def read_config_file(path: str | Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A configuration file with everything that it `extends` merged below it, as a plain tree.

    `extends`, `data.path`, `data.media` and `fusion.initial` are relative to the file that gives
    them.

    Raises:
        ConfigError: a file that cannot be read, is not YAML, or extends itself.
    """
    path = Path(path)
    if path.resolve() in _seen:
        files = [str(seen) for seen in (*_seen, path.resolve())]
        chain = " -> ".join([*files[:5], *(["..."] if len(files) > 5 else [])])
        raise ConfigError(f"{path}: extends itself: {chain}")
    if len(_seen) >= DEEPEST:
        raise ConfigError(
            f"{path}: it is the last of more than {DEEPEST} files that extend each "
            "other; put their values into fewer files"
        )
    tree = _read_yaml(path)
    base = tree.pop("extends", None)
    for section, name in _PATHS:
        inner = tree.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(name), str):
            inner[name] = str((path.parent / Path(inner[name]).expanduser()).resolve())
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: {shorten(repr(base))} is not the name of a file")
    base_path = path.parent / base
    if not os.path.isfile(base_path):  # pathlib raises for names that are too long
        raise ConfigError(f"{path}: extends: there is no file {shorten(str(base_path))}")
    parent = read_config_file(base_path, (*_seen, path.resolve()))
    # Spaces are whole: a sweep that extends another and names a space means only that space.
    if "space" in tree:
        parent.pop("space", None)
    from omegaconf import OmegaConf

    merged = OmegaConf.merge(OmegaConf.create(parent), OmegaConf.create(tree))
    return typing.cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))


@overload
def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config: ...


@overload
def load_config(
    path: str | Path | None, overrides: Sequence[str], model: type[ConfigT]
) -> ConfigT: ...


def load_config(
    path: str | Path | None, overrides: Sequence[str] = (), model: type[Config] = Config
) -> Config:
    """Read, merge, override and validate a configuration.

    Args:
        path: a YAML file; None for the defaults.
        overrides: `key=value` with dotted keys; values are read as YAML.
        model: `Config`, or a subclass with more sections.

    Raises:
        ConfigError: anything that is wrong, in one line.
    """
    tree = read_config_file(path) if path is not None else {}
    override(tree, overrides)
    return validate(model, tree, str(path or "configuration"))


def override(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put values into a tree.

    Args:
        tree: plain values, by section; changed in place.
        overrides: `key=value` with dotted keys; values are read as YAML.

    Raises:
        ConfigError: one that is not of this form, or has no YAML, or a section within a value.
    """
    for one in overrides:
        key, equals, raw = one.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {shorten(one)!r}: write it as key=value")
        value = _override_value(one, raw)
        if tuple(key.strip().split(".")) in _PATHS and isinstance(value, str):
            value = str(Path(value).expanduser().resolve())
        node: dict[str, Any] = tree
        *parents, last = key.strip().split(".")
        for parent in parents:
            child = node.get(parent)
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ConfigError(
                    f"override {shorten(one)!r}: {shorten(parent)} is a value, not a section"
                )
            node = child
        node[last] = value


def _override_value(override: str, raw: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # OmegaConf reads `1e-4` as a number, plain YAML as a string.
    try:
        _check_tokens(raw)
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=True)
    except _OddError as error:
        raise ConfigError(f"override {shorten(override)!r}: {error.problem}") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        raise ConfigError(
            f"override {shorten(override)!r}: the value is not valid YAML; quote it, or write "
            "null, a "
            "number, [a list] or {a: mapping}"
        ) from None
    return typing.cast(dict[str, Any], parsed)["value"]


def dump_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    text: str = yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )
    return text


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes what only OmegaConf's reader takes for a number, such as the name `1e5`."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        float(text)
    except ValueError:
        style = None
    else:
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
