"""The encoder `tiny`: small, randomly initialised, its tokenizer trained on train; needs no hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["tiny_model", "tiny_tokenizer"]

TINY_VOCABULARY = 4096
TINY_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "sep_token": "</s>",
    "cls_token": "<s>",
}


def tiny_tokenizer(texts: Sequence[str], tokenizer_json: bytes | None) -> Any:
    """The tokenizer of `tiny`: as it was saved, or else trained on these texts."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if tokenizer_json is None:
        backend = _train_tokenizer(texts)
    else:
        backend = Tokenizer.from_str(tokenizer_json.decode())
    return PreTrainedTokenizerFast(tokenizer_object=backend, **TINY_TOKENS)


def _train_tokenizer(texts: Sequence[str]) -> Any:
    """Byte-level BPE in lower case: knows no unknown character, and the same texts give the same
    tokenizer (WordPiece's training numbers its continuations at random)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCABULARY,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(dict.fromkeys(TINY_TOKENS.values())),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # Every prompt closes with these words, so they are as frequent as the utterances are.
    closing = [" Now", " feels"] * max(2, len(texts))
    backend.train_from_iterator([*(f" {text.strip()}" for text in texts), *closing], trainer)
    return backend


class _NoDropout(nn.Module):
    """The identity, at any rate that the training loop gives to the dropouts."""

    p = 0.0

    def forward(self, values: Tensor) -> Tensor:
        return values


def tiny_model(tokenizer: Any, max_length: int) -> Any:
    """A randomly initialised RoBERTa for inputs of at most `max_length` tokens."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=max_length + tokenizer.pad_token_id + 1,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = RobertaModel(config, add_pooling_layer=False)
    # Without dropout attention has a fused kernel on a CPU: a third of the time saved.
    for layer in model.encoder.layer:
        layer.attention.self.dropout = _NoDropout()
    return model
