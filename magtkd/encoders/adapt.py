"""What the configuration changes in an encoder: dropout, gradient checkpointing, LoRA."""

from __future__ import annotations

from typing import Any

from torch import nn

from magtkd.errors import ConfigError

__all__ = ["adapt"]

# Queries and values, as in LoRA's paper (Hu et al., 2022), by the names that the models give them;
# the last one is both and the keys in one.
TARGETS = {"query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "qkv"}
# Their attention takes the weights out of these layers instead of calling them, so that an update
# beside the weights would change nothing and get no gradient.
PAST_LAYERS = {"wavlm"}


def adapt(
    stage: str,
    model: Any,
    *,
    dropout: float,
    gradient_checkpointing: bool,
    lora: tuple[int, float] | None,
) -> None:
    """Change an encoder in place.

    Args:
        stage: whose encoder it is, for messages.
        model: a transformers model.
        dropout: rate of all its dropout layers.
        gradient_checkpointing: compute activations again instead of keeping them.
        lora: rank and alpha; all other weights are frozen. None for none.

    Raises:
        ConfigError: the model does not support it or would ignore it, or `peft` is not
            installed.
    """
    if gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise ConfigError(
                f"{stage}.gradient_checkpointing: {type(model).__name__} has none; set it to false"
            )
        _checkpoint(model)
    if lora is not None:
        _add_lora(stage, model, *lora)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def _checkpoint(model: Any) -> None:
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # its name in later versions
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _add_lora(stage: str, model: Any, rank: int, alpha: float) -> None:
    if model.config.model_type in PAST_LAYERS:
        raise ConfigError(
            f"{stage}.lora: {type(model).__name__} has an attention that would not see the "
            "updates; leave lora out, or take data2vec-audio, wav2vec2 or HuBERT"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(
            f"{stage}.lora: needs peft, which is not installed; pip install 'magtkd[lora]', or "
            "leave lora out"
        ) from None
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS
    ]
    if not targets:
        raise ConfigError(
            f"{stage}.lora: {type(model).__name__} has no attention that it could update; leave "
            "lora out"
        )
    # peft annotates an int, but only divides by it.
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": targets}
    inject_adapter_in_model(LoraConfig(**settings), model)
    if hasattr(model, "feature_extractor"):
        # Else a speech encoder asks for the waveform's own gradient when it trains, and keeps the
        # activations of its frozen convolutions for it.
        model.feature_extractor._freeze_parameters()
