from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from magtkd.fusion import MAGT, FusionOutput
from magtkd.fusion.positions import sinusoidal_code
from magtkd.losses import cross_entropy

GOLDEN = Path(__file__).parents[2] / "golden"
MODALITIES = ("text", "audio", "video")
SIZES: dict[str, Any] = {
    "hidden_dim": 14,
    "num_heads": 7,
    "depth": 2,
    "num_classes": 5,
    "num_speakers": 3,
    "dropout": 0.5,
}

modality_sets = st.sets(st.sampled_from(MODALITIES), min_size=1).map(sorted)


def build(**changes: Any) -> MAGT:
    torch.manual_seed(0)
    return MAGT(**SIZES | changes).eval()


def draw(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    batch = {
        modality: torch.randn(*shape, SIZES["hidden_dim"], generator=generator)
        for modality in MODALITIES
    }
    batch["mask"] = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    batch["speaker"] = torch.randint(0, SIZES["num_speakers"], shape, generator=generator)
    return batch


def tensors(output: FusionOutput) -> list[Tensor]:
    return [*output.logits.values(), *output.hidden.values()]


def keep(batch: dict[str, Tensor], modalities: list[str]) -> dict[str, Tensor | None]:
    return {
        name: value if name in modalities or name not in MODALITIES else None
        for name, value in batch.items()
    }


def load(depth: int) -> dict[str, dict[str, Any]]:
    with np.load(GOLDEN / f"magt_depth{depth}.npz") as golden:
        groups: dict[str, dict[str, Any]] = {"state": {}, "in": {}, "out": {}, "grad": {}}
        for name in golden:
            group, _, rest = name.partition("/")
            groups[group][rest] = golden[name]
    return groups


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 40),
    modality_sets,
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing(
    lengths: list[int], num_padded: int, modalities: list[str], data: st.DataObject
) -> None:
    model = build(modalities=modalities)
    batch = draw(lengths, data.draw(st.integers(0, 1000)))
    longer = draw([*lengths[:-1], max(lengths) + num_padded], 1)
    for name, value in batch.items():
        longer[name][:, : max(lengths)] = value
        longer[name][:, max(lengths) :] = False if name == "mask" else 99
    before, after = model(**keep(batch, modalities)), model(**keep(longer, modalities))
    for short, long in zip(tensors(before), tensors(after), strict=True):
        valid = batch["mask"]
        torch.testing.assert_close(long[:, : max(lengths)][valid], short[valid])


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_order_and_company_in_a_batch_change_nothing(order: list[int]) -> None:
    model = build()
    batch = draw([3, 5, 1, 2])
    before = tensors(model(**batch))
    after = tensors(model(**{name: value[order] for name, value in batch.items()}))
    alone = tensors(model(**{name: value[order[:1]] for name, value in batch.items()}))
    for there, moved, single in zip(before, after, alone, strict=True):
        torch.testing.assert_close(moved, there[order])
        torch.testing.assert_close(single, there[order[:1]])


def test_a_conversation_of_padding_alone_gives_no_nan() -> None:
    model = build()
    batch = draw([5, 2])
    batch["mask"][1] = False
    output = model(**batch)
    output.text_logits[0].sum().backward()
    assert all(value.isfinite().all() for value in tensors(output))
    assert all(parameter.grad.isfinite().all() for parameter in model.anchor.parameters())


def test_a_mask_of_numbers_is_the_mask() -> None:
    model = build()
    batch = draw([5, 2])
    torch.testing.assert_close(
        tensors(model(**batch | {"mask": batch["mask"].float()})), tensors(model(**batch))
    )


@pytest.mark.parametrize("length", [32, 33, 71])
def test_any_length_is_placed(length: int) -> None:
    model = build()
    output = model(**draw([length]))
    assert output.text_logits.shape == (1, length, SIZES["num_classes"])
    assert len(model.position_code) >= length
    assert "position_code" not in model.state_dict()


def test_position_code_is_sine_and_cosine() -> None:
    code = sinusoidal_code(11, 6)
    position = torch.arange(11.0)
    torch.testing.assert_close(code[:, 0], torch.sin(position))
    torch.testing.assert_close(code[:, 3], torch.cos(position / 10_000 ** (2 / 6)))


@pytest.mark.parametrize(
    "modalities", [["text"], ["video"], ["text", "video"], ["audio", "video"], list(MODALITIES)]
)
def test_it_runs_on_what_is_there(modalities: list[str]) -> None:
    model = build(modalities=modalities)
    output = model(**keep(draw([5, 2]), modalities))
    assert list(output.logits) == list(output.hidden) == modalities
    assert output.predicted_logits is getattr(output, f"{modalities[0]}_logits")
    assert output.predicted_hidden is getattr(output, f"{modalities[0]}_hidden")
    assert model.anchor.reduce.weight.shape == (1, 14, len(modalities) * 14)
    num_encoders = 0 if model.others is None else len(model.others.gate.linear.weight)
    assert num_encoders == (len(modalities) - 1) * len(modalities)
    output.predicted_logits.sum().backward()


def test_without_video_it_is_the_whole_model_with_videos_columns_at_zero() -> None:
    small, whole = build(modalities=("text", "audio")), build()
    state = whole.state_dict()
    audio_streams = [0, 2]  # audio to itself, audio to text
    for name, value in small.state_dict().items():
        if "reduce.weight" in name:
            state[name][0] = 0
            state[name][0, :, : 2 * 14] = value[0]
        elif name.startswith("others.") and value.shape[0] == len(audio_streams):
            state[name][audio_streams] = value
        elif name.startswith("others."):
            state[name][0] = value[0]
        else:
            state[name] = value
    whole.load_state_dict(state)
    batch = draw([5, 2])
    expected, output = whole(**batch), small(**keep(batch, ["text", "audio"]))
    torch.testing.assert_close(output.text_logits, expected.text_logits)
    torch.testing.assert_close(output.audio_hidden, expected.audio_hidden)


def test_the_anchor_is_a_role_and_not_a_modality() -> None:
    first, second = build(modalities=("text", "audio")), build(modalities=("audio", "video"))
    batch = draw([5, 2])
    placed = batch | {"audio": batch["text"], "video": batch["audio"]}
    torch.testing.assert_close(
        second(**placed | {"text": None}).audio_logits, first(**batch | {"video": None}).text_logits
    )


def test_others_are_not_moved_by_the_anchors_loss_alone_where_they_do_not_reach_it() -> None:
    model = build(modalities=("text", "audio"))
    model(**keep(draw([5, 2]), ["text", "audio"])).text_logits.sum().backward()
    assert model.others.head.weight.grad is None
    assert model.others.layers[0].inner.weight.grad.abs().sum() > 0


def test_dropout_acts_in_training_only_and_follows_its_rate() -> None:
    model, batch = build(), draw([5, 2])
    calm = model(**batch).text_logits
    model.train()
    assert not torch.equal(model(**batch).text_logits, model(**batch).text_logits)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.testing.assert_close(model(**batch).text_logits, calm)


def test_a_seed_repeats_training_exactly() -> None:
    model, batch = build().train(), draw([5, 2])
    outputs = []
    for _ in range(2):
        torch.manual_seed(11)
        outputs.append(model(**batch).text_logits)
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "num_heads is 3, which does not divide hidden_dim, 14"),
        ({"hidden_dim": 7}, "hidden_dim is 7; the sinusoidal position code needs an even one"),
        ({"modalities": ()}, "choose one or more of text, audio, video"),
        ({"modalities": ("text", "smell")}, r"modalities \['text', 'smell'\]"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_other_modalities_than_built_with_are_refused() -> None:
    model = build(modalities=("text", "audio"))
    with pytest.raises(ValueError, match="built with text, audio but given text, audio, video"):
        model(**draw([5, 2]))
    with pytest.raises(ValueError, match="built with text, audio but given audio"):
        model(**keep(draw([5, 2]), ["audio"]))
    with pytest.raises(ValueError, match="audio is 11 wide but hidden_dim is 14"):
        model(**keep(draw([5, 2]) | {"audio": torch.zeros(2, 5, 11)}, ["text", "audio"]))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("as_tensors", [True, False])
def test_golden_outputs_and_gradients(depth: int, as_tensors: bool) -> None:
    golden = load(depth)
    state = golden["state"]
    if as_tensors:
        state = {name: torch.tensor(value) for name, value in state.items()}
    model = MAGT.from_published(state).eval()
    inputs = {name: torch.tensor(value) for name, value in golden["in"].items()}
    label = inputs.pop("label")
    output = model(**inputs)
    valid = inputs["mask"].bool()
    loss = cross_entropy(output.text_logits[valid], label[valid])
    assert loss.item() == pytest.approx(golden["out"].pop("text_ce").item(), abs=1e-5)
    for name, expected in golden["out"].items():
        np.testing.assert_allclose(getattr(output, name).detach(), expected, atol=1e-5, rtol=0)
    loss.backward()
    gradients = published_gradients(model)
    for name, expected in golden["grad"].items():
        np.testing.assert_allclose(gradients[name], expected, atol=1e-5, rtol=0, err_msg=name)


def published_gradients(model: MAGT) -> dict[str, Tensor]:
    carrier = copy.deepcopy(model)
    for target, source in zip(carrier.parameters(), model.parameters(), strict=True):
        target.data = torch.zeros_like(source) if source.grad is None else source.grad
    return carrier.to_published()


def test_published_names_round_trip() -> None:
    model = build(num_heads=2)
    again = MAGT.from_published(model.to_published(), num_heads=2)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_published_sizes_are_read_off_the_state() -> None:
    model = MAGT.from_published(load(2)["state"], dropout=0.25)
    assert (model.hidden_dim, model.depth) == (32, 2)
    assert model.speaker_embedding.num_embeddings == 305


def test_published_state_that_lacks_or_adds_is_refused() -> None:
    state = load(1)["state"]
    name = "v_a.transformer_inter.0.feed_forward.w_1.bias"
    with pytest.raises(ValueError, match=f"missing {name}"):
        MAGT.from_published({key: value for key, value in state.items() if key != name})
    with pytest.raises(ValueError, match=r"unknown extra\.weight"):
        MAGT.from_published(state | {"extra.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"another shape w_v.bias \[11\] \(not \[7\]\)"):
        MAGT.from_published(state | {"w_v.bias": np.zeros(11)})
    with pytest.raises(ValueError, match=r"missing w_t\.weight, speaker_embeddings\.weight, t_t"):
        MAGT.from_published({})


def test_published_form_needs_all_modalities() -> None:
    with pytest.raises(ValueError, match="built with text, audio; the published model has all"):
        build(modalities=("text", "audio")).to_published()


# --- without an anchor, without gates ---------------------------------------------------------


@pytest.mark.parametrize("modalities", [["text"], ["text", "audio"], list(MODALITIES)])
def test_without_an_anchor_a_fused_head_predicts(modalities: list[str]) -> None:
    model = build(modalities=modalities, anchor=False)
    output = model(**keep(draw([5, 2]), modalities))
    assert output.predicted_logits is output.fused_logits
    assert list(output.hidden) == modalities
    assert list(output.logits) == [modality for modality in modalities if modality != "text"]
    total = sum(value.sum() for value in tensors(output) if value.requires_grad)
    (total + output.predicted_logits.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_an_anchor_no_modality_reads_a_refined_one() -> None:
    """Text's state depends on audio through one reading only, so what audio reads in video cannot
    reach it."""
    model, batch = build(anchor=False), draw([5])
    assert model.others is not None
    text = model(**batch).text_hidden
    with torch.no_grad():
        model.others.reduce.weight[1] = 0  # audio's state, which nothing may read
    torch.testing.assert_close(model(**batch).text_hidden, text)


@pytest.mark.parametrize(("gate", "num_gates"), [("learned", 4), ("identity", 0), ("none", 0)])
def test_gates(gate: str, num_gates: int) -> None:
    model = build(gate=gate)
    assert len([name for name, _ in model.named_parameters() if "gate" in name]) == num_gates
    logits = model(**draw([5, 2])).text_logits
    assert logits.isfinite().all()
    if gate != "learned":
        learned = build()
        learned.load_state_dict(model.state_dict(), strict=False)
        assert not torch.allclose(learned(**draw([5, 2])).text_logits, logits)


@pytest.mark.parametrize("changes", [{"gate": "none"}, {"anchor": False}])
def test_published_form_needs_anchor_and_gates(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the published model has an anchor and learned gates"):
        build(**changes).to_published()
