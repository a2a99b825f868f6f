"""A transformers text encoder that reads an utterance's emotion from the end of its prompt.

Shapes: N utterances of a batch, T tokens of its longest prompt, H hidden_dim, W the encoder's
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from magtkd.encoders.adapt import adapt
from magtkd.encoders.backbone import load_backbone
from magtkd.encoders.hub import quiet_transformers
from magtkd.encoders.prompts import (
    build_prompt,
    conversation_rows,
    turn_speakers,
)
from magtkd.encoders.tokens import TokenizedUtterances
from magtkd.errors import ConfigError

__all__ = ["TextEncoder"]


class TextEncoder(nn.Module):
    """Prompt to the mask's hidden state, through a linear map to `hidden_dim`.

    Its state dict and `tokenizer_json` are all it is: built again with the same arguments and that
    tokenizer, and loaded, it computes the same. Seed torch before: new weights are random.

    Args:
        encoder: `tiny`, `minilm`, a folder, or a model id.
        texts: the utterances of train; the tokenizer of `tiny` is trained on them.
        known_speakers: normalised names with a token of their own (`prompts.know_speakers`).
        hidden_dim: width H of what comes out.
        dropout: dropout rate in the encoder and on the mask's hidden state.
        prompt_length: trained vectors just before the mask (Lester et al., EMNLP 2021).
        template: `published` asks `Now <speaker> feels <mask>`; `none` reads the separator that
            closes the utterance.
        train: `full` trains everything; `prompt` only the prompt vectors and the linear map, with
            the encoder's own dropout off.
        max_length: tokens of an input, prompt vectors included.
        tokenizer_json: for `tiny`, the tokenizer as it was saved, instead of training it.
        gradient_checkpointing: compute activations again instead of keeping them.
        lora: rank and alpha of the updates to train instead of the weights; None for none.

    Raises:
        ConfigError: an encoder that cannot be found or read, has no mask token, or is too short
            for `max_length`.
    """

    def __init__(
        self,
        encoder: str,
        *,
        texts: Sequence[str],
        known_speakers: Sequence[str],
        hidden_dim: int,
        dropout: float,
        prompt_length: int = 0,
        template: Literal["published", "none"] = "published",
        train: Literal["full", "prompt"] = "full",
        max_length: int = 256,
        tokenizer_json: bytes | None = None,
        gradient_checkpointing: bool = False,
        lora: tuple[int, float] | None = None,
    ) -> None:
        super().__init__()
        backbone = load_backbone(
            encoder,
            texts=texts,
            known_speakers=known_speakers,
            max_length=max_length,
            tokenizer_json=tokenizer_json,
        )
        self.model: Any = backbone.model
        self.known_speakers = tuple(known_speakers)
        self.prompt_length = prompt_length
        self.template = template
        self.max_length = max_length
        self.is_frozen = train == "prompt"
        self.model.requires_grad_(not self.is_frozen)
        adapt(
            "teacher",
            self.model,
            dropout=dropout,
            gradient_checkpointing=gradient_checkpointing,
            lora=lora,
        )
        self.prompt = _prompt_vectors(self.model, prompt_length) if prompt_length else None
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.model.config.hidden_size, hidden_dim)
        self._backbone = backbone

    @property
    def tokenizer_json(self) -> bytes:
        """The tokenizer with its speaker tokens, to keep beside the weights."""
        text: str = self._backbone.tokenizer.backend_tokenizer.to_str()
        return text.encode()

    def train(self, mode: bool = True) -> TextEncoder:
        super().train(mode)
        if self.is_frozen:
            self.model.eval()
        return self

    def encode_inputs(
        self,
        *,
        splits: Sequence[str],
        dialogues: Sequence[str],
        speakers: Sequence[str],
        texts: Sequence[str],
        context: int | None,
    ) -> TokenizedUtterances:
        """Tokenise every utterance once and build every utterance's prompt.

        Args:
            splits: split of each utterance; rows of a conversation in its order.
            dialogues: dialogue of each utterance.
            speakers: speaker of each utterance.
            texts: text of each utterance.
            context: turns before the utterance to show; None shows all that fit.

        Raises:
            ConfigError: `max_length` leaves no room for the words that close the prompt.
        """
        words = self._tokenize([f" {text.strip()}" for text in texts])
        closing = self._tokenize([" Now", " feels"])
        prompts: list[np.ndarray] = [np.empty(0)] * len(texts)
        for rows in conversation_rows(splits, dialogues):
            names = turn_speakers([speakers[row] for row in rows], self.known_speakers)
            leads = self._backbone.tokenizer.convert_tokens_to_ids(names)
            turns = [[lead, *words[row]] for lead, row in zip(leads, rows, strict=True)]
            for turn, row in enumerate(rows):
                prompt = self._build(turns[: turn + 1], leads[turn], closing, context)
                prompts[row] = np.array(prompt, dtype=np.int32)
        return TokenizedUtterances(prompts, self._backbone.pad_id)

    def _build(
        self, turns: list[list[int]], lead: int, closing: list[list[int]], context: int | None
    ) -> list[int]:
        now, feels = closing
        suffix = [self._backbone.separator_id]
        if self.template == "published":
            suffix += [*now, lead, *feels, self._backbone.mask_id]
        length = self.max_length - self.prompt_length
        if len(suffix) >= length:
            raise ConfigError(
                f"teacher.max_length: {self.max_length} leaves no room for the utterance beside "
                f"{self.prompt_length} prompt vectors and the {len(suffix)} tokens that close the "
                "prompt; raise it"
            )
        return build_prompt(turns, suffix, context=context, max_length=length)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden features [N, H] of prompts [N, T] that are padded on the left."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._moves_encoder):
            hidden = self._hidden(input_ids, attention_mask)
        result: Tensor = self.linear(self.dropout(hidden))
        return result

    @property
    def _moves_encoder(self) -> bool:
        """Whether anything before the linear map is trained."""
        return not self.is_frozen or self.prompt is not None

    def _hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The hidden state of the last token, which is the mask where there is one: [N, W]."""
        inputs: dict[str, Tensor] = {"input_ids": input_ids}
        if self.prompt is not None:
            embedded = self.model.get_input_embeddings()(input_ids)
            vectors = self.prompt.to(embedded.dtype).expand(len(input_ids), -1, -1)
            inputs = {"inputs_embeds": torch.cat([embedded[:, :-1], vectors, embedded[:, -1:]], 1)}
            ones = attention_mask.new_ones(len(input_ids), self.prompt_length)
            attention_mask = torch.cat([attention_mask, ones], dim=1)
        offset = self._backbone.position_offset
        if offset is not None:
            # Counted over real tokens: left padding must not move them.
            position = (attention_mask.cumsum(dim=1) - 1 + offset) * attention_mask
            inputs["position_ids"] = position
        hidden: Tensor = self.model(attention_mask=attention_mask, **inputs).last_hidden_state
        return hidden[:, -1]

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        # Special tokens that a text happens to spell are text.
        with quiet_transformers():
            encoded = self._backbone.tokenizer(
                list(texts),
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        ids: list[list[int]] = encoded["input_ids"]
        return ids


def _prompt_vectors(model: Any, length: int) -> nn.Parameter:
    """[length, W'] vectors of the same scale as the embeddings."""
    weight = model.get_input_embeddings().weight.detach()
    return nn.Parameter(torch.randn(length, weight.shape[1]) * weight.std())
