from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from magtkd.fusion import SDT, FusionOutput, self_distillation_loss
from magtkd.losses import cross_entropy, divergence_loss

GOLDEN = Path(__file__).parents[2] / "golden"
MODALITIES = ("text", "audio", "video")
WIDTHS = {"text": 11, "audio": 13, "video": 5}
SIZES: dict[str, Any] = {
    "hidden_dim": 14,
    "num_heads": 7,
    "depth": 2,
    "num_classes": 3,
    "num_speakers": 2,
    "dropout": 0.5,
}

modality_sets = st.sets(st.sampled_from(MODALITIES), min_size=1).map(sorted)


def build(*modalities: str, **changes: Any) -> SDT:
    torch.manual_seed(0)
    widths = {modality: WIDTHS[modality] for modality in modalities or MODALITIES}
    return SDT(widths=widths, **SIZES | changes).eval()


def draw(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    batch = {
        modality: torch.randn(*shape, width, generator=generator)
        for modality, width in WIDTHS.items()
    }
    batch["mask"] = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    batch["speaker"] = torch.randint(0, SIZES["num_speakers"], shape, generator=generator)
    return batch


def keep(batch: dict[str, Tensor], *modalities: str) -> dict[str, Tensor | None]:
    return {
        name: value if name in modalities or name not in MODALITIES else None
        for name, value in batch.items()
    }


def tensors(output: FusionOutput) -> list[Tensor]:
    return [value for value in vars(output).values() if value is not None]


def load(variant: str) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {"state": {}, "in": {}, "out": {}, "loss": {}}
    with np.load(GOLDEN / f"sdt_{variant}.npz") as golden:
        for name in golden:
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = golden[name]
    return groups


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 40),
    modality_sets,
    st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing(
    lengths: list[int], num_padded: int, modalities: list[str], seed: int
) -> None:
    model, batch = build(*modalities), draw(lengths, seed)
    longer = draw([*lengths[:-1], max(lengths) + num_padded], 1)
    for name, value in batch.items():
        longer[name][:, : max(lengths)] = value
        longer[name][:, max(lengths) :] = False if name == "mask" else 99
    before, after = model(**keep(batch, *modalities)), model(**keep(longer, *modalities))
    valid = batch["mask"]
    for short, long in zip(tensors(before), tensors(after), strict=True):
        torch.testing.assert_close(long[:, : max(lengths)][valid], short[valid])


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_order_and_company_in_a_batch_change_nothing(order: list[int]) -> None:
    model, batch = build(), draw([3, 5, 1, 2])
    before = tensors(model(**batch))
    after = tensors(model(**{name: value[order] for name, value in batch.items()}))
    alone = tensors(model(**{name: value[order[:1]] for name, value in batch.items()}))
    for there, moved, single in zip(before, after, alone, strict=True):
        torch.testing.assert_close(moved, there[order])
        torch.testing.assert_close(single, there[order[:1]])


def test_a_conversation_of_padding_alone_gives_no_nan() -> None:
    model, batch = build(), draw([5, 2])
    batch["mask"][1] = False
    output = model(**batch)
    output.predicted_logits[0].sum().backward()
    assert all(value.isfinite().all() for value in tensors(output))
    assert all(p.grad.isfinite().all() for p in model.readers.layers.parameters())


def test_a_mask_of_numbers_is_the_mask() -> None:
    model, batch = build(), draw([5, 2])
    numbers = model(**batch | {"mask": batch["mask"].float()})
    torch.testing.assert_close(tensors(numbers), tensors(model(**batch)))


@pytest.mark.parametrize("gate", ["learned", "identity", "none"])
def test_gradients_reach_every_weight(gate: str) -> None:
    model = build(gate=gate).train()
    batch = draw([5, 2])
    loss = self_distillation_loss(
        model(**batch),
        batch["mask"],
        torch.zeros(2, 5, dtype=torch.long),
        fused_weight=1.0,
        modality_weight=1.0,
        distill_weight=1.0,
        temperature=2.0,
        detach_fused=False,
    )
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("modalities", [["text"], ["text", "video"], ["audio", "video"]])
def test_it_runs_on_what_is_there(modalities: list[str]) -> None:
    model = build(*modalities)
    output = model(**keep(draw([5, 2]), *modalities))
    assert list(output.logits) == list(output.hidden) == modalities
    assert output.predicted_logits is output.fused_logits
    assert output.fused_hidden.shape == (2, 5, 14)
    num_streams = len(modalities) ** 2
    assert model.readers.gate.linear.weight.shape == (num_streams, 14, 14)


def test_every_modality_counts_and_one_alone_is_fused_with_nothing() -> None:
    model, batch = build(), draw([5, 2])
    before = model(**batch).predicted_logits
    for modality in MODALITIES:
        other = model(**batch | {modality: batch[modality] + 1}).predicted_logits
        assert not torch.allclose(other, before)
    alone = build("audio")(**keep(batch, "audio"))
    torch.testing.assert_close(alone.fused_hidden, alone.audio_hidden)


@pytest.mark.parametrize(("gate", "num_gates"), [("learned", 2), ("identity", 1), ("none", 0)])
def test_gates(gate: str, num_gates: int) -> None:
    model, batch = build(gate=gate), draw([5, 2])
    names = [name for name, _ in model.named_parameters() if "gate" in name or "fuse" in name]
    assert len(names) == num_gates
    output = model(**batch)
    if gate == "none":
        mean = torch.stack(list(output.hidden.values())).mean(dim=0)
        torch.testing.assert_close(output.fused_hidden, mean)


def test_wrong_sizes_and_modalities_are_refused() -> None:
    with pytest.raises(ValueError, match="num_heads is 4, which does not divide hidden_dim, 14"):
        build(num_heads=4)
    with pytest.raises(ValueError, match="hidden_dim is 7; the sinusoidal"):
        build(hidden_dim=7)
    with pytest.raises(ValueError, match="built with text, audio but given text, audio, video"):
        build("text", "audio")(**draw([5, 2]))
    with pytest.raises(ValueError, match="text is 3 wide but was built for 11"):
        build()(**draw([5, 2]) | {"text": torch.zeros(2, 5, 3)})


# --- against the published numbers ------------------------------------------------------------


@pytest.mark.parametrize("variant", ["iemocap", "meld"])
@pytest.mark.parametrize("as_tensors", [True, False])
def test_golden_outputs(variant: str, as_tensors: bool) -> None:
    golden = load(variant)
    state = golden["state"]
    if as_tensors:
        state = {name: torch.tensor(value) for name, value in state.items()}
    model = SDT.from_published(state).eval()
    assert model.gate_kind == {"iemocap": "learned", "meld": "identity"}[variant]
    inputs = {name: torch.tensor(value) for name, value in golden["in"].items()}
    inputs.pop("label")
    output = model(**inputs)
    temperature = float(golden["temperature"][""])
    logits = output.logits | {"all": output.predicted_logits}
    for modality, of_modality in logits.items():
        kinds = ("log_prob", "prob") if modality == "all" else ("log_prob",)
        for kind in kinds:
            soften = F.log_softmax if kind == "log_prob" else F.softmax
            expected = golden["out"][f"{modality}_{kind}"]
            np.testing.assert_allclose(soften(of_modality, -1).detach(), expected, atol=1e-5)
        kind = kinds[-1]
        soften = F.log_softmax if kind == "log_prob" else F.softmax
        expected = golden["out"][f"kl_{modality}_{kind}"]
        found = soften(of_modality / temperature, -1).detach()
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("variant", ["iemocap", "meld"])
def test_golden_losses(variant: str) -> None:
    golden = load(variant)
    model = SDT.from_published(golden["state"]).eval()
    inputs = {name: torch.tensor(value) for name, value in golden["in"].items()}
    label = inputs.pop("label")
    output = model(**inputs)
    valid = inputs["mask"].bool()
    temperature = float(golden["temperature"][""])
    fused = output.predicted_logits[valid]
    found = {"ce_all": cross_entropy(fused, label[valid])}
    for modality, logits in output.logits.items():
        found[f"ce_{modality}"] = cross_entropy(logits[valid], label[valid])
        found[f"kl_{modality}"] = divergence_loss(logits[valid], fused, temperature=temperature)
    assert found.keys() == golden["loss"].keys()
    for name, value in found.items():
        assert value.item() == pytest.approx(golden["loss"][name].item(), abs=1e-5), name
    whole = self_distillation_loss(
        output,
        inputs["mask"],
        label,
        fused_weight=1.0,
        modality_weight=1.0,
        distill_weight=1.0,
        temperature=temperature,
        detach_fused=False,
    )
    assert whole.item() == pytest.approx(sum(golden["loss"].values()).item(), abs=1e-5)


def test_published_state_that_lacks_or_adds_is_refused() -> None:
    state = load("iemocap")["state"]
    with pytest.raises(ValueError, match=r"SDT state: missing textf_input\.weight, acouf_input"):
        SDT.from_published({})
    with pytest.raises(ValueError, match=r"missing last_gate\.fc\.weight"):
        SDT.from_published(
            {name: value for name, value in state.items() if name != "last_gate.fc.weight"}
        )
    with pytest.raises(ValueError, match=r"unknown extra\.weight"):
        SDT.from_published(state | {"extra.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"a_output_layer.2.bias \[11\] \(not \[7\]\)"):
        SDT.from_published(state | {"a_output_layer.2.bias": np.zeros(11)})
