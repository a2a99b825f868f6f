"""Configurations in files: reading, `extends`, overrides, writing."""

from __future__ import annotations

import io
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from pydantic import BaseModel

from magtkd.config.checks import validate
from magtkd.config.sections import Config
from magtkd.errors import ConfigError, first_line

__all__ = ["dump_yaml", "file_schema", "load_config", "read_config_file"]

ConfigT = TypeVar("ConfigT", bound=Config)

_PATHS = {("data", "path"), ("data", "media"), ("fusion", "initial")}
"""Values that are paths, relative to the file or command line that gives them."""


# OmegaConf is loaded where it is used: it is a third of what a trial's process, which reads no
# file, imports beside Ray.


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
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {first_line(error)}") from None
    except OSError:  # OmegaConf's word for a file that is one number
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: the top level is not a mapping; write sections such as `fusion: {{depth: 2}}`"
        )
    return typing.cast(dict[str, Any], tree)


def file_schema(model: type[Config]) -> dict[str, Any]:
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
        chain = " -> ".join(str(seen) for seen in (*_seen, path.resolve()))
        raise ConfigError(f"{path}: extends itself: {chain}")
    tree = _read_yaml(path)
    base = tree.pop("extends", None)
    for section, name in _PATHS:
        inner = tree.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(name), str):
            inner[name] = str((path.parent / Path(inner[name]).expanduser()).resolve())
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: {base!r} is not the name of a file")
    base_path = path.parent / base
    if not base_path.is_file():
        raise ConfigError(f"{path}: extends: there is no file {base_path}")
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
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {override!r}: write it as key=value")
        value = _override_value(override, raw)
        if tuple(key.strip().split(".")) in _PATHS and isinstance(value, str):
            value = str(Path(value).expanduser().resolve())
        node: dict[str, Any] = tree
        *parents, last = key.strip().split(".")
        for parent in parents:
            child = node.get(parent)
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"override {override!r}: {parent} is a value, not a section")
            node = child
        node[last] = value
    return validate(model, tree, str(path or "configuration"))


def _override_value(override: str, raw: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # OmegaConf reads `1e-4` as a number, plain YAML as a string.
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        raise ConfigError(
            f"override {override!r}: the value is not valid YAML; quote it, or write null, a "
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
