"""Text encoders and their tokenizers: `tiny`, from a folder, or from the hub.

`transformers` is imported when it is needed: it takes seconds, and most teachers need none of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from magtkd.encoders.hub import load_pretrained, quiet_transformers
from magtkd.encoders.prompts import speaker_token, speaker_tokens
from magtkd.encoders.tiny import tiny_model, tiny_tokenizer
from magtkd.errors import ConfigError

__all__ = ["Backbone", "load_backbone"]

PLACE = "teacher.encoder"
_WAY_OUT = (
    "give a model id that is cached or can be downloaded, a folder with config.json, weights and "
    "tokenizer, or 'tiny'"
)


@dataclass(frozen=True)
class Backbone:
    """An encoder with the speaker tokens in its vocabulary, and what one must know to feed it.

    `position_offset` is the first position's number (RoBERTa's family counts from the padding
    token's number plus one); None where the model takes no position numbers.
    """

    model: Any
    tokenizer: Any
    separator_id: int
    mask_id: int
    pad_id: int
    position_offset: int | None


def load_backbone(
    encoder: str,
    *,
    texts: Sequence[str],
    known_speakers: Sequence[str],
    max_length: int,
    tokenizer_json: bytes | None = None,
) -> Backbone:
    """An encoder that knows the speaker tokens.

    Args:
        encoder: `tiny`, `minilm`, a folder in the hub's layout, or a model id.
        texts: the utterances of train, from which the tokenizer of `tiny` is trained.
        known_speakers: normalised names that get a token beside the unknown speakers'.
        max_length: tokens that an input may have.
        tokenizer_json: for `tiny`, the tokenizer as it was saved, instead of training it.

    Raises:
        ConfigError: an encoder that cannot be found or read, has no mask token, or is too short.
    """
    with quiet_transformers():
        if encoder == "tiny":
            tokenizer = tiny_tokenizer(texts, tokenizer_json)
        else:
            tokenizer = load_pretrained(PLACE, encoder, "AutoTokenizer", way_out=_WAY_OUT)
        _check_tokens(encoder, tokenizer)
        tokenizer.add_tokens(list(speaker_tokens(known_speakers)), special_tokens=True)
        if encoder == "tiny":
            model = tiny_model(tokenizer, max_length)
        else:
            model = load_pretrained(
                PLACE, encoder, "AutoModel", way_out=_WAY_OUT, dtype=torch.float32
            )
        _check_model(encoder, model)
        _embed_speakers(model, tokenizer, known_speakers)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # Nothing reads it, so it would only be carried along.
    offset = _position_offset(model)
    _check_length(encoder, model, offset, max_length)
    return Backbone(
        model=model,
        tokenizer=tokenizer,
        separator_id=_separator_id(tokenizer),
        mask_id=tokenizer.mask_token_id,
        pad_id=tokenizer.pad_token_id or 0,
        position_offset=offset,
    )


def _separator_id(tokenizer: Any) -> Any:
    separator = tokenizer.sep_token_id
    return tokenizer.eos_token_id if separator is None else separator


def _check_tokens(encoder: str, tokenizer: Any) -> None:
    for kind, token in (("mask", tokenizer.mask_token_id), ("separator", _separator_id(tokenizer))):
        if token is None:
            raise ConfigError(
                f"teacher.encoder: the tokenizer of {encoder!r} has no {kind} token, which the "
                "prompt needs; choose a masked language model, such as BERT or RoBERTa, or 'tiny'"
            )


def _check_model(encoder: str, model: Any) -> None:
    accepted = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or not {"inputs_embeds", "attention_mask"} <= set(accepted):
        raise ConfigError(
            f"teacher.encoder: {encoder!r} is a {type(model).__name__}, not a text encoder; choose "
            "a masked language model, such as BERT or RoBERTa, or 'tiny'"
        )


def _embed_speakers(model: Any, tokenizer: Any, known_speakers: Sequence[str]) -> None:
    """Start an unknown speaker's token at the mean of all embeddings, a known one's at the mean of
    its name's pieces: so the tokens differ even where the encoder is frozen."""
    size = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(max(size, len(tokenizer)), mean_resizing=False)
    weight = model.get_input_embeddings().weight
    added = tokenizer.convert_tokens_to_ids(list(speaker_tokens(known_speakers)))
    with torch.no_grad():
        weight[added] = weight[: min(added)].mean(dim=0)
        for name in known_speakers:
            words = f" {name.replace('_', ' ')}"
            pieces = tokenizer(words, add_special_tokens=False)["input_ids"]
            if pieces:
                token = tokenizer.convert_tokens_to_ids(speaker_token(name))
                weight[token] = weight[pieces].mean(dim=0)


def _position_offset(model: nn.Module) -> int | None:
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def _check_length(encoder: str, model: Any, offset: int | None, max_length: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and positions - (offset or 0) < max_length:
        raise ConfigError(
            f"teacher.max_length: {max_length}, but {encoder!r} takes at most "
            f"{positions - (offset or 0)} tokens; lower it to that"
        )
