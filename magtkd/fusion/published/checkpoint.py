"""Files of weights: reading them without running their code, and starting from them."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from magtkd.errors import ConfigError, DataError, first_line, shorten

__all__ = ["labels_text", "load_initial", "read_checkpoint"]

NESTED = ("state_dict", "model_state_dict", "model")
"""Under these names a training script may keep the state dict beside other things."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a torch state dict file or of a safetensors file, by name, on the CPU.

    A prefix `module.`, which training on several devices adds, is taken off. Nothing in the file
    is run.

    Raises:
        DataError: it cannot be read, or holds anything but finite numbers by name.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; give a checkpoint") from None
    if start[8:9] == b"{":
        tensors, _ = _read_safetensors(path)
    else:
        tensors = _read_torch(path)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def load_initial(model: nn.Module, path: str, labels: Sequence[str]) -> None:
    """Start from the weights of a file; `labels` are those of the corpus.

    Raises:
        ConfigError: the file is none of weights, or they are of another model or other labels.
    """
    place = f"fusion.initial: {path}"
    try:
        tensors, metadata = _read_safetensors(Path(path))
    except (DataError, OSError) as error:
        raise ConfigError(f"fusion.initial: {error}") from None
    of_labels = metadata.get("labels", labels_text(labels))
    if of_labels != labels_text(labels):
        raise ConfigError(
            f"{place}: its labels are {of_labels[:400]}; the corpus has {labels_text(labels)}; "
            "start from weights for these labels"
        )
    own = model.state_dict()
    for name in [*own, *tensors]:
        here, there = _shape(own, name), _shape(tensors, name)
        if here != there:
            raise ConfigError(
                f"{place}: {name} is {there} there and {here} in this model; set the model, its "
                "sizes, its modalities and the widths before it as they were for these weights"
            )
    model.load_state_dict(tensors)


def labels_text(labels: Sequence[str]) -> str:
    """Labels in order, as a file of weights names them."""
    return json.dumps(list(labels), ensure_ascii=False)


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "absent"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _checked(path, tensors), dict(file.metadata() or {})
    except (SafetensorError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a safetensors file: {first_line(error, 200)}") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    _refuse_compressed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it is about to refuse
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path}: holds more than tensors, or is no checkpoint; save it again with "
            "torch.save(model.state_dict(), ...)"
        ) from None
    except Exception as error:  # torch has many types of error for a damaged file
        raise DataError(f"{path}: not a torch checkpoint: {first_line(error, 200)}") from None
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    return _checked(path, content)


def _refuse_compressed(path: Path) -> None:
    """Torch stores as it is; what is compressed may be made to fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info for info in archive.infolist() if info.compress_type]
    except zipfile.BadZipFile:
        return
    if packed:
        raise DataError(f"{path}: not a torch checkpoint: {packed[0].filename} is compressed")


def _checked(path: Path, content: object) -> dict[str, Tensor]:
    """The content, if it is dense tensors of finite numbers by name."""
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path}: is no state dict: it is a {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise DataError(
                f"{path}: {shorten(str(name))!r} is no tensor but {type(tensor).__name__}"
            )
        if not _is_plain(tensor):
            raise DataError(f"{path}: {shorten(name)!r} is not a dense tensor of real numbers")
        if not tensor.isfinite().all():
            raise DataError(f"{path}: {shorten(name)!r} has values that are not finite")
    return dict(content)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, real and stored whole: a single number may claim to be many."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        return False
    num_bytes = tensor.numel() * tensor.element_size()
    return tensor.device.type == "cpu" and num_bytes <= tensor.untyped_storage().nbytes()
