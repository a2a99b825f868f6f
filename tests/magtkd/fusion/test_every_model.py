"""What holds of every fusion model of the registry: a new one is tested by its line there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from magtkd.config import Config, FusionConfig
from magtkd.fusion import FusionOutput
from magtkd.models import MODELS, FusionModel, Sizes
from magtkd.pipeline import CoreTrainer, run_chain
from magtkd.store import Artifact, Store

MODALITIES = ("text", "audio", "video")
WIDTH, NUM_CLASSES, NUM_SPEAKERS = 12, 4, 3
LENGTHS = (5, 2, 1)
# Every loss has a weight, so that every head of every model learns.
SECTION: dict[str, Any] = {
    "hidden_dim": WIDTH,
    "num_heads": 3,
    "depth": 2,
    "audio_weight": 0.5,
    "video_weight": 0.5,
    "feature_weight": 0.5,
}

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
modality_sets = pytest.mark.parametrize(
    "modalities", [("text",), ("video",), ("text", "audio"), MODALITIES], ids="+".join
)


def section_of(model: FusionModel) -> FusionConfig:
    return FusionConfig(model=model.name, **SECTION)


def build(model: FusionModel, modalities: tuple[str, ...] = MODALITIES) -> nn.Module:
    torch.manual_seed(0)
    sizes = Sizes(dict.fromkeys(modalities, WIDTH), NUM_CLASSES, NUM_SPEAKERS)
    return model.build(section_of(model), sizes).eval()


def draw(modalities: tuple[str, ...] = MODALITIES, length: int = max(LENGTHS)) -> dict[str, Any]:
    """A batch of conversations of `LENGTHS`, padded to `length`; the same but for the padding."""
    generator = torch.Generator().manual_seed(0)
    longest = (len(LENGTHS), max(LENGTHS))
    features = {name: torch.randn(*longest, WIDTH, generator=generator) for name in MODALITIES}
    label = torch.randint(0, NUM_CLASSES, longest, generator=generator)
    speaker = torch.randint(0, NUM_SPEAKERS, longest, generator=generator)
    mask = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    batch: dict[str, Any] = {
        name: padded(tensor, mask, 77.0) if name in modalities else None
        for name, tensor in features.items()
    }
    label, speaker = padded(label, mask, -100), padded(speaker, mask, 99)
    return batch | {"mask": mask, "label": label, "speaker": speaker}


def padded(tensor: Tensor, mask: Tensor, filling: float) -> Tensor:
    result = torch.full((*mask.shape, *tensor.shape[2:]), filling, dtype=tensor.dtype)
    valid = mask[:, : tensor.shape[1]]
    result[:, : tensor.shape[1]][valid] = tensor[valid]
    return result


def output_of(network: nn.Module, batch: dict[str, Any]) -> FusionOutput:
    names = (*MODALITIES, "mask", "speaker")
    output: FusionOutput = network(*(batch[name] for name in names))
    return output


def loss_of(model: FusionModel, output: FusionOutput, batch: dict[str, Any], **of: Any) -> Tensor:
    section = section_of(model).model_copy(update=of)
    return model.loss(output, batch["mask"], batch["label"], section, None)


@every_model
@modality_sets
def test_shapes(model: FusionModel, modalities: tuple[str, ...]) -> None:
    batch = draw(modalities)
    output = output_of(build(model, modalities), batch)
    assert output.predicted_logits.shape == (*batch["mask"].shape, NUM_CLASSES)
    assert output.predicted_hidden.shape == (*batch["mask"].shape, WIDTH)
    assert {*output.logits, *output.hidden} <= set(modalities)
    assert loss_of(model, output, batch).shape == ()


@every_model
@modality_sets
def test_padding_changes_nothing(model: FusionModel, modalities: tuple[str, ...]) -> None:
    network = build(model, modalities)
    short, long = draw(modalities), draw(modalities, max(LENGTHS) + 4)
    before, after = output_of(network, short), output_of(network, long)
    for one, other in (
        (before.predicted_logits[short["mask"]], after.predicted_logits[long["mask"]]),
        (before.predicted_hidden[short["mask"]], after.predicted_hidden[long["mask"]]),
        (loss_of(model, before, short), loss_of(model, after, long)),
    ):
        torch.testing.assert_close(other, one)


@every_model
def test_conversations_do_not_see_each_other(model: FusionModel) -> None:
    network, batch = build(model), draw()
    whole = output_of(network, batch).predicted_logits
    for row in range(len(LENGTHS)):
        alone = output_of(network, {name: tensor[[row]] for name, tensor in batch.items()})
        torch.testing.assert_close(
            alone.predicted_logits[0][: LENGTHS[row]], whole[row][: LENGTHS[row]]
        )


@every_model
def test_a_conversation_of_padding_alone_gives_no_nan(model: FusionModel) -> None:
    network, batch = build(model), draw()
    batch["mask"][1] = False
    output = output_of(network, batch)
    loss_of(model, output, batch).backward()
    assert output.predicted_logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@every_model
@modality_sets
def test_the_gradient_reaches_every_parameter(
    model: FusionModel, modalities: tuple[str, ...]
) -> None:
    network, batch = build(model, modalities).train(), draw(modalities)
    loss_of(model, output_of(network, batch), batch).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # What weighs modalities against each other has nothing to weigh where there is one.
        assert parameter.grad.any() or len(modalities) == 1, name


@every_model
def test_the_gradient_reaches_every_modality(model: FusionModel) -> None:
    batch = draw()
    for name in MODALITIES:
        batch[name].requires_grad_()
    output_of(build(model), batch).predicted_logits[batch["mask"]].sum().backward()
    for name in MODALITIES:
        assert batch[name].grad[batch["mask"]].any(), name


@every_model
def test_class_weights_count(model: FusionModel) -> None:
    batch = draw()
    output = output_of(build(model), batch)
    weights = torch.tensor([1.0, 0.5, 2.0, 3.0])
    section = section_of(model)
    weighed = model.loss(output, batch["mask"], batch["label"], section, weights)
    assert not torch.isclose(weighed, loss_of(model, output, batch))


OTHERS: dict[str, Any] = {
    "num_heads": 4,
    "depth": 3,
    "gate": "none",
    "anchor": False,
    "detach_anchor": True,
}


@every_model
def test_what_it_declares_is_read(model: FusionModel) -> None:
    """Another value of a field gives another network or another gradient exactly where the model
    declares the field."""

    def gradients(section: FusionConfig) -> list[Tensor]:
        torch.manual_seed(0)
        sizes = Sizes(dict.fromkeys(MODALITIES, WIDTH), NUM_CLASSES, NUM_SPEAKERS)
        network, batch = model.build(section, sizes).eval(), draw()
        output = output_of(network, batch)
        model.loss(output, batch["mask"], batch["label"], section, None).backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    every = {name for one in MODELS.values() for name in one.reads}
    section, read = section_of(model), set()
    before = gradients(section)
    for name in every:
        other = OTHERS.get(name, 0.25)
        after = gradients(FusionConfig.model_validate(section.model_dump() | {name: other}))
        same = len(after) == len(before) and all(
            one.shape == two.shape and torch.equal(one, two)
            for one, two in zip(before, after, strict=True)
        )
        if not same:
            read.add(name)
    assert read == set(model.reads)


# --- in the stage -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., Config]
) -> dict[str, Artifact]:
    return run_chain(tiny_config(), Store(tmp_path_factory.mktemp("store")), with_fusion=False)


@every_model
@pytest.mark.parametrize("modalities", ["audio", "text+video", None])
def test_checkpoint_and_restore(
    artifacts: dict[str, Artifact],
    tiny_config: Callable[..., Config],
    model: FusionModel,
    modalities: str | None,
) -> None:
    """From a checkpoint a session continues to the same bits; widths differ, so that there are maps
    before the model."""
    config = tiny_config(
        {"fusion.model": model.name, "fusion.modalities": modalities, "fusion.hidden_dim": 12}
    )
    trainer = CoreTrainer("cpu")
    whole = trainer.open_session("fusion", config, artifacts).run()
    session = trainer.open_session("fusion", config, artifacts)
    while not session.is_done:
        checkpoint = session.checkpoint()
        session = trainer.open_session("fusion", config, artifacts)
        session.restore(checkpoint)
        session.advance()
    again = session.result()
    assert again.weights == whole.weights
    assert np.array_equal(again.logits, whole.logits)
    assert again.metrics["reports"] == whole.metrics["reports"]


@every_model
def test_trained_weights_are_a_start(
    artifacts: dict[str, Artifact],
    tiny_config: Callable[..., Config],
    model: FusionModel,
    tmp_path: Path,
) -> None:
    trainer, values = CoreTrainer("cpu"), {"fusion.model": model.name}
    trained = trainer.open_session("fusion", tiny_config(values), artifacts).run()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(trained.weights)
    session = trainer.open_session(
        "fusion", tiny_config(values | {"fusion.initial": str(path)}), artifacts
    )
    session._best = session._copied_weights()
    assert np.array_equal(session.result().logits, trained.logits)
