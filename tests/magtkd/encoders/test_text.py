import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magtkd.encoders import TextEncoder, TokenizedUtterances
from magtkd.encoders.tiny import tiny_tokenizer
from magtkd.errors import ConfigError

TEXTS = [
    "Oh my God, he's lost it.",
    "What?",
    "He was here, and then he was gone!",
    "I know, I know.",
    "Fine.",
    "Why do you have to shout at me? I did not do it.",
]
SPEAKERS = ["Phoebe", "Monica", "Phoebe", "Mr. Geller", "Joey", "Monica"]
DIALOGUES = ["0", "0", "0", "0", "1", "1"]
KNOWN = ("phoebe", "monica", "joey")
MAX_LENGTH = 64


def make(encoder: str = "tiny", *, seed: int = 0, **options: Any) -> TextEncoder:
    torch.manual_seed(seed)
    given: dict[str, Any] = {
        "hidden_dim": 5,
        "dropout": 0.1,
        "max_length": MAX_LENGTH,
        "texts": TEXTS,
    }
    return TextEncoder(encoder, known_speakers=KNOWN, **(given | options))


def tokenize(encoder: TextEncoder, context: int | None = 8, **columns: Any) -> TokenizedUtterances:
    given = {"dialogues": DIALOGUES, "speakers": SPEAKERS, "texts": TEXTS}
    return encoder.encode_inputs(splits=["train"] * 6, context=context, **(given | columns))


def read(encoder: TextEncoder, prompt: np.ndarray) -> str:
    return " ".join(encoder._backbone.tokenizer.decode(prompt).replace("<", " <").split())


@torch.no_grad()
def encode(encoder: TextEncoder, tokenized: TokenizedUtterances, rows: list[int]) -> Tensor:
    batch = tokenized.batch(rows)
    hidden: Tensor = encoder.eval()(batch.input_ids, batch.attention_mask)
    return hidden


def save_model(folder: Path, kind: str) -> Path:
    """A random masked language model as the hub lays it out."""
    import transformers

    tokenizer = tiny_tokenizer(TEXTS, None)
    small: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 14,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 17,
        "max_position_embeddings": 71,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**small)
    getattr(transformers, f"{kind}ForMaskedLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    saved: dict[str, str] = {"tiny": "tiny"}

    def folder(kind: str) -> str:
        if kind not in saved:
            saved[kind] = str(save_model(tmp_path_factory.mktemp("models") / kind, kind))
        return saved[kind]

    return folder


KINDS = pytest.mark.parametrize("kind", ["tiny", "Roberta", "Bert", "Electra"])


# --- prompts ----------------------------------------------------------------------------------


def test_the_prompt_in_the_model_s_own_tokens() -> None:
    encoder = make()
    prompt = tokenize(encoder).ids[3]
    assert read(encoder, prompt) == (
        "<speaker:phoebe> oh my god, he's lost it. <speaker:monica> what? "
        "<speaker:phoebe> he was here, and then he was gone! <unknown:1> i know, i know. "
        "</s> now <unknown:1> feels <mask>"
    )


def test_without_a_prompt_the_separator_closes_the_utterance() -> None:
    encoder = make(template="none")
    prompt = tokenize(encoder).ids[3]
    assert read(encoder, prompt).endswith("<unknown:1> i know, i know. </s>")
    hidden = encode(encoder, tokenize(encoder), [0, 3])
    assert hidden.shape == (2, 5)
    assert not torch.equal(hidden[0], hidden[1])


def test_truncation_drops_the_oldest_and_keeps_the_closing() -> None:
    encoder = make(max_length=24, prompt_length=3)
    prompt = tokenize(encoder, context=None).ids[3]
    whole = tokenize(make(max_length=128), context=None).ids[3]
    assert len(prompt) == 21
    assert prompt.tolist() == whole[-21:].tolist()
    assert read(encoder, prompt).endswith("</s> now <unknown:1> feels <mask>")


def test_special_tokens_that_a_text_spells_are_text() -> None:
    encoder = make()
    texts = ["<mask> </s> <speaker:joey> <pad>", *TEXTS[1:]]
    prompt = tokenize(encoder, texts=texts).ids[0].tolist()
    assert prompt.count(encoder._backbone.mask_id) == 1
    assert prompt.count(encoder._backbone.separator_id) == 1


def test_an_empty_utterance_has_a_prompt() -> None:
    encoder = make()
    tokenized = tokenize(encoder, texts=["", *TEXTS[1:]])
    assert read(encoder, tokenized.ids[0]).startswith("<speaker:phoebe> </s>")
    assert encode(encoder, tokenized, [0]).isfinite().all()


def test_no_room_for_the_utterance() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.max_length: 16 leaves no room .* raise it"):
        tokenize(make(max_length=16, prompt_length=12))


# --- the encoder ------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("prompt_length", [0, 3])
def test_left_padding_never_changes_the_output(
    folders: Callable[[str], str], kind: str, prompt_length: int
) -> None:
    encoder = make(folders(kind), prompt_length=prompt_length)
    tokenized = tokenize(encoder)
    together = encode(encoder, tokenized, [0, 1, 2, 3, 4, 5])
    alone = torch.cat([encode(encoder, tokenized, [row]) for row in range(6)])
    assert together.shape == (6, 5)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@KINDS
def test_context_and_speaker_reach_the_output(folders: Callable[[str], str], kind: str) -> None:
    encoder = make(folders(kind))
    with_context = encode(encoder, tokenize(encoder, context=8), [2])
    without = encode(encoder, tokenize(encoder, context=0), [2])
    other = ["Phoebe", "Monica", "Joey", "Mr. Geller", "Joey", "Monica"]
    by_other = encode(encoder, tokenize(encoder, context=8, speakers=other), [2])
    assert not torch.allclose(with_context, without, atol=1e-6)
    assert not torch.allclose(with_context, by_other, atol=1e-6)


def test_later_turns_never_reach_the_output() -> None:
    encoder = make()
    later = [*TEXTS[:3], "Something else entirely.", *TEXTS[4:]]
    before = encode(encoder, tokenize(encoder), [0, 1, 2])
    after = encode(encoder, tokenize(encoder, texts=later), [0, 1, 2])
    torch.testing.assert_close(before, after, atol=0, rtol=0)


def test_prompt_vectors_reach_the_output() -> None:
    encoder = make(prompt_length=3)
    tokenized = tokenize(encoder)
    before = encode(encoder, tokenized, [0])
    assert encoder.prompt is not None
    with torch.no_grad():
        encoder.prompt.mul_(-1)
    assert not torch.allclose(before, encode(encoder, tokenized, [0]), atol=1e-6)
    assert make(prompt_length=0).prompt is None


def gradients(encoder: TextEncoder) -> set[str]:
    batch = tokenize(encoder).batch([0, 3, 4])
    encoder.train()(batch.input_ids, batch.attention_mask).square().sum().backward()
    return {name for name, weight in encoder.named_parameters() if weight.grad is not None}


@KINDS
def test_training_the_prompt_moves_nothing_else(folders: Callable[[str], str], kind: str) -> None:
    encoder = make(folders(kind), prompt_length=3, train="prompt")
    trained = {"prompt", "linear.weight", "linear.bias"}
    assert gradients(encoder) == trained
    assert {name for name, weight in encoder.named_parameters() if weight.requires_grad} == trained


def test_training_the_prompt_without_one_moves_the_linear_map() -> None:
    assert gradients(make(train="prompt")) == {"linear.weight", "linear.bias"}


@KINDS
def test_training_in_full_moves_everything(folders: Callable[[str], str], kind: str) -> None:
    encoder = make(folders(kind), prompt_length=3)
    assert gradients(encoder) == {name for name, _ in encoder.named_parameters()}


def test_a_frozen_encoder_has_no_dropout() -> None:
    encoder = make(train="prompt", prompt_length=3, dropout=0.5).train()
    batch = tokenize(encoder).batch([0])
    hidden = [encoder._hidden(batch.input_ids, batch.attention_mask) for _ in range(2)]
    assert torch.equal(*hidden)
    assert not encoder.model.training
    assert encoder.training


def train_a_little(seed: int) -> Tensor:
    encoder = make(seed=seed, prompt_length=3)
    tokenized = tokenize(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    encoder.train()
    for batch in tokenized.batches(range(6), 2, torch.Generator().manual_seed(seed)):
        optimizer.zero_grad()
        encoder(batch.input_ids, batch.attention_mask).square().sum().backward()
        optimizer.step()
    return encode(encoder, tokenized, list(range(6)))


def test_a_seed_repeats_bit_for_bit() -> None:
    assert torch.equal(train_a_little(seed=7), train_a_little(seed=7))
    assert not torch.equal(train_a_little(seed=7), train_a_little(seed=11))


def test_weights_and_tokenizer_rebuild_it() -> None:
    encoder = make(prompt_length=3)
    copy = make(seed=11, prompt_length=3, texts=[], tokenizer_json=encoder.tokenizer_json)
    copy.load_state_dict(encoder.state_dict())
    rows = list(range(6))
    first, second = (encode(built, tokenize(built), rows) for built in (encoder, copy))
    assert torch.equal(first, second)


def test_the_same_texts_train_the_same_tokenizer() -> None:
    assert make().tokenizer_json == make(seed=11).tokenizer_json


# --- loading ----------------------------------------------------------------------------------


@KINDS
def test_loads_quietly_and_without_a_network(
    folders: Callable[[str], str],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    encoder = folders(kind)
    capfd.readouterr()

    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    tokenize(make(encoder))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["Roberta", "Bert"])
def test_a_folder_gives_its_own_weights(folders: Callable[[str], str], kind: str) -> None:
    first, second = make(folders(kind), seed=1), make(folders(kind), seed=2)
    assert all(
        torch.equal(weight, second.model.state_dict()[name])
        for name, weight in first.model.state_dict().items()
    )


def test_a_known_speaker_starts_at_the_mean_of_the_name(folders: Callable[[str], str]) -> None:
    encoder = make(folders("Bert"))
    tokenizer, weight = encoder._backbone.tokenizer, encoder.model.get_input_embeddings().weight
    pieces = tokenizer(" phoebe")["input_ids"]
    own = weight[tokenizer.convert_tokens_to_ids("<speaker:phoebe>")]
    torch.testing.assert_close(own, weight[pieces].mean(dim=0))


def test_too_long_for_the_model(folders: Callable[[str], str]) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.max_length: 256, .* at most 71 tokens; lower"):
        make(folders("Bert"), max_length=256)
    with pytest.raises(ConfigError, match="at most 69 tokens"):
        make(folders("Roberta"), max_length=70)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [("./nowhere", "no such folder"), ("a/b/c", "Repo id must be")],
)
def test_a_model_that_is_not_there(encoder: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"teacher\.encoder: cannot load .*{reason}.*'tiny'"):
        make(encoder)


def test_a_model_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ConfigError, match=r"cannot load 'no-such/model' .*give a model id"):
        make("no-such/model")
    for near, known in (("tinny", "tiny"), ("mini-lm", "minilm")):
        with pytest.raises(ConfigError, match=rf"cannot load '{near}' .*; did you mean '{known}'"):
            make(near)


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.encoder: cannot load .*; give a model id"):
        make(str(tmp_path))


def test_damaged_weights(tmp_path: Path) -> None:
    save_model(tmp_path, "Bert")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"teacher\.encoder: cannot load .*; give a model id"):
        make(str(tmp_path))


def test_a_tokenizer_without_a_mask(tmp_path: Path) -> None:
    save_model(tmp_path, "Bert")
    tokenizer = tiny_tokenizer(TEXTS, None)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no mask token.*choose a masked language model"):
        make(str(tmp_path))


def test_an_encoder_with_a_decoder(tmp_path: Path) -> None:
    from transformers import BartConfig, BartModel

    tokenizer = tiny_tokenizer(TEXTS, None)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=14,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=17,
        decoder_ffn_dim=17,
    )
    BartModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is a BartModel, not a text encoder; choose"):
        make(str(tmp_path))
