"""The sections of a configuration: one per stage, each field with its range and its meaning."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from magtkd.config import declared
from magtkd.config.reasons import reason
from magtkd.models import MODELS
from magtkd.reading import EVERYTHING, Choice, Given, Reads, Why
from magtkd.schedules import SCHEDULES

__all__ = [
    "AudioConfig",
    "AudioMediaConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "EncoderSection",
    "FusionConfig",
    "LoraConfig",
    "Resources",
    "Section",
    "StageResources",
    "StudentConfig",
    "SyntheticConfig",
    "TeacherConfig",
    "TrainingSection",
    "VideoConfig",
    "VideoMediaConfig",
]

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
if TYPE_CHECKING:
    ModelName = str
    ScheduleName = str
else:
    ModelName = Literal[tuple(MODELS)]
    ScheduleName = Literal[tuple(SCHEDULES)]


def _name_readers(schema: dict[str, Any], model: type[Section]) -> None:
    """Add to each field's description which variants read it, where not all do."""
    for name, field in schema.get("properties", {}).items():
        readers = [reader for choice in model.CHOICES for reader in choice.readers(name)]
        if readers:
            text = f"{field.get('description', '')} Read by: {', '.join(readers)}."
            field["description"] = text.strip()


class Section(BaseModel):
    """A frozen section that refuses keys it does not know.

    `CHOICES` and `CONDITIONS` declare which fields are not read under which values; all others are
    always read.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        json_schema_extra=_name_readers,
    )

    CHOICES: ClassVar[tuple[Choice, ...]] = ()
    """The fields that choose a variant, with what each variant reads."""
    CONDITIONS: ClassVar[Reads] = {}
    """Further conditions under which a field is read."""

    def unread(self, given: Given = EVERYTHING) -> dict[str, str]:
        """The dotted names within this section that are not read, and why; a section in it that is
        not read counts as a name too."""
        found: dict[str, str] = {}
        conditions = _conditions(type(self))
        for name in type(self).model_fields:
            value = getattr(self, name)
            reasons = (one(self, given) for one in conditions[name]) if name in conditions else ()
            why = next((reason for reason in reasons if reason is not None), None)
            if why is not None:
                found |= {name: why} | {f"{name}.{inner}": why for inner in _leaves(value)}
            elif isinstance(value, Section):
                found |= {f"{name}.{inner}": why for inner, why in value.unread(given).items()}
        return found

    def keyed(self, given: Given = EVERYTHING) -> dict[str, Any]:
        """The section as plain values, without what is not read."""
        return _without(self.model_dump(mode="json"), self.unread(given))


@functools.cache
def _conditions(model: type[Section]) -> dict[str, list[Why]]:
    """The conditions under which each field is read; a field that is always read has none."""
    found: dict[str, list[Why]] = {name: [why] for name, why in model.CONDITIONS.items()}
    for choice in model.CHOICES:
        for name in model.model_fields:
            if choice.readers(name):
                found.setdefault(name, []).append(functools.partial(choice.why_unread, name))
    return found


def _leaves(value: Any) -> list[str]:
    """The dotted names within a value, where it is a section."""
    if not isinstance(value, Section):
        return []
    return [
        f"{name}.{inner}" if inner else name
        for name in type(value).model_fields
        for inner in _leaves(getattr(value, name)) or [""]
    ]


def _without(tree: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A tree of plain values without some dotted names."""
    kept = {name: value for name, value in tree.items() if name not in names}
    for name, value in kept.items():
        start = f"{name}."
        if isinstance(value, dict):
            inner = [other.removeprefix(start) for other in names if other.startswith(start)]
            kept[name] = _without(value, inner)
    return kept


PUBLISHED: dict[str, Any] = {
    "model": "magt",
    "hidden_dim": 768,
    "num_heads": 8,
    "depth": 1,
    "epochs": 30,
    "batch_size": 16,
    "accumulation": 1,
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "weight_decay": 1e-6,
    "dropout": 0.5,
    "gradient_norm": 10.0,
    "precision": "float32",
    "schedule": "published",
    "patience": None,
    "class_weights": "none",
    "temperature": 2.0,
    "feature_temperature": 1.0,
    "inter_weight": 1.0,
    "intra_weight": 1.0,
    "detach_anchor": False,
    "changes": {},
}
RECIPES: dict[str, dict[str, Any]] = {
    "published_meld": PUBLISHED
    | {"audio_weight": 0.01, "video_weight": 0.08, "feature_weight": 0.0},
    "published_iemocap": PUBLISHED
    | {"audio_weight": 0.7, "video_weight": 0.8, "feature_weight": 1.0},
}
"""MAGT's published values (arXiv 2506.18716 and its code), without those that make a baseline:
`gate`, `anchor`, `modalities` and `inputs` may be given beside a recipe."""


class SyntheticConfig(Section):
    """Synthetic conversations from a Markov chain of emotions; see `magtkd.data.synthetic`."""

    num_dialogues: Annotated[int, Field(ge=3)] = 90
    """Conversations in all three splits together."""
    mean_length: Annotated[float, Field(ge=1)] = 8.0
    """Mean number of utterances of a conversation."""
    num_speakers: Positive = 6
    """Speakers in the whole corpus; each conversation has two or three of them."""
    num_emotions: Annotated[int, Field(ge=2, le=7)] = 4
    """Number of labels."""
    inertia: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that a speaker keeps the emotion of their own last utterance."""
    contagion: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Probability that a speaker takes over the emotion of the utterance before."""
    word_signal: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of an utterance's words that are drawn from its emotion's vocabulary."""
    text_dim: Positive = 32
    """Width of the text features."""
    audio_dim: Positive = 24
    """Width of the audio features."""
    video_dim: Positive = 16
    """Width of the video features."""
    text_signal: Weight = 2.5
    """Distance of the emotions' means in the text features, in standard deviations of the noise."""
    audio_signal: Weight = 1.5
    """The same for the audio features."""
    video_signal: Weight = 0.75
    """The same for the video features."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the corpus; apart from the training seed, so that the data stay while seeds vary."""

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.inertia + self.contagion > 1:
            raise ValueError(
                f"inertia + contagion is {self.inertia + self.contagion:g}; keep it at most 1"
            )
        return self


class DataConfig(Section):
    """Which table of conversations, and how it is split and numbered."""

    CONDITIONS = declared.DATA

    path: str | None = None
    """A Parquet file in the schema, or a folder with MELD's three CSV files. In a file, relative
    to that file; on the command line, to the working directory."""
    media: str | None = None
    """The folder that `audio_path` and `video_path` are relative to; null is the table's own."""
    synthetic: SyntheticConfig | None = None
    """Instead of `path`: a synthetic corpus."""
    standardise: bool = True
    """Bring each column of the features to mean 0 and standard deviation 1 on train; published
    fusion weights expect features as they are."""
    dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the train conversations that become dev where the table has no dev split."""
    speakers: Literal["conversation", "name", "published"] = "conversation"
    """Number speakers by their first turn within each conversation; by name over the corpus (names
    that train lacks share one number); or, for published fusion weights, as the field's feature
    files number them: S1, S2, ... by their number less one, and IEMOCAP's men 0, women 1 (Ses01_M,
    Ses01_F, M, F)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is not None and self.synthetic is not None:
            raise ValueError("path and synthetic exclude each other; set one of them to null")
        return self


class TrainingSection(Section):
    """What every trained stage has."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE,)

    epochs: Positive = 10
    """Passes over train."""
    batch_size: Positive = 16
    """Conversations a batch."""
    accumulation: Positive = 1
    """Batches whose gradients are averaged, by their utterances, before each step."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW; or Adam, whose weight decay is an L2 term of the gradient (SDT's)."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """The optimizer's peak learning rate."""
    weight_decay: Weight = 1e-4
    """Weight decay: decoupled with AdamW, of the gradient with Adam."""
    hidden_dim: Positive = 64
    """Width of the stage's hidden features."""
    dropout: Rate = 0.1
    """Dropout rate."""
    gradient_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Gradients are clipped to this norm."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic on CUDA (autocast); a CPU always computes in float32."""
    schedule: ScheduleName = "constant"
    """Learning rate over the steps: constant; linear warm-up, then linear decay to 0; or the
    published code's warm-up, which counts conversations while stepping per batch."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps that are warm-up."""
    patience: Positive | None = None
    """Stop after this many epochs without a better dev metric; null never stops."""
    select: Literal["weighted_f1", "accuracy", "loss"] = "weighted_f1"
    """The dev metric that chooses the epoch whose weights are kept."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the cross-entropy: none, or inversely proportional to their
    frequency in train."""

    def at_epoch(self, epoch: int) -> Self:
        """The section as it is in this epoch (from 1)."""
        return self


class LoraConfig(Section):
    """Low-rank adaptation of an encoder's attention (Hu et al., ICLR 2022), by `peft`."""

    rank: Positive = 8
    """Rank of each update."""
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0
    """The update is scaled by `alpha / rank`."""


class EncoderSection(TrainingSection):
    """What a stage has that may train a transformers encoder."""

    FROZEN: ClassVar[str]
    """The value of `train` that leaves the encoder as it is."""
    CLIP_LENGTH: ClassVar[str | None] = None
    """The value that bounds the length of a clip, where one does."""

    batch_size: Positive = 32
    """Utterances a batch."""
    encoder: Annotated[str, Field(min_length=1)] = "features"
    gradient_checkpointing: bool = False
    """Compute the encoder's activations again instead of keeping them: less memory, more time."""
    lora: LoraConfig | None = None
    """Train low-rank updates of the encoder's attention instead of its weights (not WavLM's)."""

    @model_validator(mode="after")
    def _options_need_an_encoder(self) -> Self:
        for name in ("lora", "gradient_checkpointing"):
            if self.encoder == "features" and getattr(self, name):
                raise ValueError(
                    f"{name} is set, but encoder 'features' has nothing for it; set encoder to a "
                    f"transformers model, or leave {name} out"
                )
        return self


class TeacherConfig(EncoderSection):
    """The text teacher."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE, declared.TEXT_ENCODER)
    FROZEN = "prompt"

    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's text features; `tiny` for a small randomly initialised
    transformer; `minilm` for the one in `magtkd[offline]`; or a transformers text encoder, by
    model id or folder."""
    prompt_length: Annotated[int, Field(ge=0)] = 0
    """Trained prompt vectors before the mask token."""
    template: Literal["published", "none"] = "published"
    """What follows the turns: `Now <speaker> feels <mask>`, whose mask is read; or no prompt, and
    the separator that closes the utterance is read."""
    train: Literal["full", "prompt"] = "full"
    """Train everything, or only the prompt and the layers on top of the encoder."""
    context: Annotated[int, Field(ge=0)] | None = 8
    """Turns before the utterance that the prompt shows; null shows all that fit."""
    max_length: Annotated[int, Field(ge=16)] = 256
    """Tokens an input has at most, prompt vectors included; it is cut on the left."""

    @model_validator(mode="after")
    def _prompt_needs_transformer(self) -> Self:
        if self.encoder == "features" and self.prompt_length > 0:
            raise ValueError(
                f"prompt_length is {self.prompt_length}, but encoder 'features' has no prompt; "
                "set encoder to 'tiny' or a transformers model, or prompt_length to 0"
            )
        if self.encoder == "features" and self.train == "prompt":
            raise ValueError(
                "train is 'prompt', but encoder 'features' has no prompt; set train to 'full'"
            )
        if self.template == "none" and self.prompt_length > 0:
            raise ValueError(
                f"prompt_length is {self.prompt_length}, but template 'none' has no prompt; set "
                "template to 'published', or prompt_length to 0"
            )
        if self.train == "prompt" and (self.lora is not None or self.gradient_checkpointing):
            raise ValueError(
                "train is 'prompt', which leaves the encoder alone; leave lora and "
                "gradient_checkpointing out, or set train to 'full'"
            )
        if self.prompt_length > self.max_length // 2:
            raise ValueError(
                f"prompt_length is {self.prompt_length}; keep it at most half of max_length, "
                f"{self.max_length}"
            )
        return self


class DistillConfig(Section):
    """How a student learns from the teacher: `CE + logit_weight * logit + feature_weight * feature`
    (arXiv 2506.18716; the logit loss is DIST's)."""

    CONDITIONS = declared.DISTILL

    logit_weight: Weight = 0.1
    """Weight of the logit loss."""
    temperature: Temperature = 2.0
    """Temperature of the logit loss."""
    inter_weight: Weight = 1.0
    """Weight of the correlation over the classes of each utterance."""
    intra_weight: Weight = 1.0
    """Weight of the correlation over the utterances of each class."""
    feature_weight: Weight = 1.0
    """Weight of the feature loss."""
    feature_temperature: Temperature = 1.0
    """Temperature of the feature loss."""


class AudioMediaConfig(Section):
    """The waveforms that an audio encoder reads: mono, decoded once for all trials."""

    published_sample_rate: bool = False
    """Resample to 22,050 Hz and call it 16,000 Hz, as the published code does."""
    max_samples: Annotated[int, Field(ge=400)] = 400_000
    """A longer clip is cut after so many samples."""
    on_missing: Literal["error", "silence"] = "error"
    """A clip that cannot be read ends the stage, or becomes a second of silence."""
    cut: Literal["shared", "always", "never"] = "shared"
    """Cut clips by `start` and `end`: where several utterances share a file, always, or never."""


class VideoMediaConfig(Section):
    """The frames that a video encoder reads: evenly spaced, decoded once for all trials."""

    num_frames: Positive | None = None
    """Frames of each clip; null is what `video.encoder` asks for."""
    image_size: Positive | None = None
    """Height and width in pixels; null is what `video.encoder` asks for."""
    on_missing: Literal["error", "black"] = "error"
    """A clip that cannot be read ends the stage, or becomes black frames."""
    cut: Literal["shared", "always", "never"] = "shared"
    """Cut clips by `start` and `end`: where several utterances share a file, always, or never."""


class StudentConfig(EncoderSection):
    """A student of one modality."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE, declared.CLIP_ENCODER)
    CONDITIONS = declared.STUDENT
    FROZEN = "head"

    train: Literal["full", "head"] = "full"
    """Train everything, or only the layers on top of the encoder."""
    pooling: Literal["first", "mean"] = "first"
    """The encoder's first hidden state, or the mean over all of the clip's (VideoMAE, which has no
    class token, takes the mean only)."""
    distill: DistillConfig | None = DistillConfig()
    """Distillation from the teacher; null trains on the labels alone."""

    @model_validator(mode="after")
    def _head_needs_an_encoder(self) -> Self:
        if self.encoder == "features" and self.train == "head":
            raise ValueError(
                "train is 'head', but encoder 'features' is nothing else; set train to 'full', or "
                "encoder to a transformers model"
            )
        if self.train == "head" and (self.lora is not None or self.gradient_checkpointing):
            raise ValueError(
                "train is 'head', which leaves the encoder alone; leave lora and "
                "gradient_checkpointing out, or set train to 'full'"
            )
        return self


class AudioConfig(StudentConfig):
    """The audio student."""

    CLIP_LENGTH = "audio_media.max_samples"

    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's audio features; or a transformers speech encoder (data2vec-audio,
    wav2vec2, HuBERT, WavLM) by model id or folder, on the clips' waveforms."""


class VideoConfig(StudentConfig):
    """The video student."""

    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's video features; or a transformers video encoder (TimeSformer,
    VideoMAE) by model id or folder, on the clips' frames."""


class FusionConfig(TrainingSection):
    """The fusion of the modalities."""

    CHOICES: ClassVar[tuple[Choice, ...]] = (declared.SCHEDULE, declared.FUSION_MODEL)

    recipe: Literal["published_meld", "published_iemocap"] | None = None
    """Sets all values of training, sizes and loss to MAGT's published ones for a corpus, the
    schedule included. It is replaced by these values, so it is null wherever it is written down. A
    value that differs beside it is refused; to start from a recipe, search or override the values
    of the resolved configuration."""
    epochs: Positive = 30
    """Passes over train."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """The optimizer's peak learning rate."""
    weight_decay: Weight = 1e-6
    """Weight decay: decoupled with AdamW, of the gradient with Adam."""
    dropout: Rate = 0.5
    """Dropout rate."""
    model: ModelName = "magt"
    """The multi-modal anchor gated transformer; the transformer with self-distillation (Ma et al.,
    2023); or two layers on the concatenated features."""
    inputs: Literal["stages", "table"] = "stages"
    """What is fused: the features that teacher and students made, or those of the table as the
    data stage gives them, without any teacher or student."""
    modalities: (
        Literal[
            "text",
            "audio",
            "video",
            "text+audio",
            "text+video",
            "audio+video",
            "text+audio+video",
        ]
        | None
    ) = None
    """The modalities that are fused, `text+audio` or `[text, audio]`; null fuses all there are.
    A stage that is then not needed is not trained."""
    gate: Literal["learned", "identity", "none"] = "learned"
    """What follows each encoder: a gate with weights of its own; one with the identity for these
    (SDT for MELD); or none, and SDT then averages the modalities."""
    anchor: bool = True
    """Text attends to the others' refined states and predicts. Without it, all modalities attend to
    each other as they come, and a head on all their states predicts and teaches."""
    depth: Positive = 1
    """Layers of each encoder."""
    num_heads: Positive = 8
    """Attention heads; they divide hidden_dim."""
    audio_weight: Weight = 0.01
    """Weight of the audio head's loss."""
    video_weight: Weight = 0.08
    """Weight of the video head's loss."""
    feature_weight: Weight = 0.0
    """Weight of the feature loss inside the audio and video heads' loss (IEMOCAP: 1)."""
    temperature: Temperature = 2.0
    """MAGT: temperature of the logit loss between the heads (published: 2). SDT: temperature of the
    self-distillation (IEMOCAP: 1, MELD: 8)."""
    feature_temperature: Temperature = 1.0
    """Temperature of the feature loss between the heads."""
    inter_weight: Weight = 1.0
    """Weight of the logit loss over the classes of each utterance."""
    intra_weight: Weight = 1.0
    """Weight of the logit loss over the utterances of each class."""
    fused_weight: Weight = 1.0
    """Weight of the fused head's cross-entropy."""
    modality_weight: Weight = 1.0
    """Weight of the cross-entropy of each modality's head."""
    distill_weight: Weight = 1.0
    """Weight of the self-distillation, from the fused head to each modality's."""
    detach_anchor: bool = False
    """Keep the other heads' losses from moving the side that teaches them (MAGT's anchor, SDT's
    fused head), unlike the published code."""
    initial: str | None = None
    """A file of weights to start from: what `magtkd import` or a fusion stage of the same sizes
    wrote, `weights.safetensors`. A path as `data.path`; its content is part of the key."""
    changes: dict[int, dict[str, Any]] = {}
    """Values that change in training: `{epoch: {name: value}}`, from that epoch (from 1) on. How a
    configuration that population based training found is written down."""

    CHANGEABLE: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "weight_decay",
        "dropout",
        "gradient_norm",
        "audio_weight",
        "video_weight",
        "feature_weight",
        "temperature",
        "feature_temperature",
        "inter_weight",
        "intra_weight",
        "fused_weight",
        "modality_weight",
        "distill_weight",
        "detach_anchor",
    )
    """The values that do not affect shapes, data order or epochs, and so may change in training."""

    @model_validator(mode="wrap")
    @classmethod
    def _resolve_recipe(cls, tree: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        name = tree.get("recipe") if isinstance(tree, dict) else None
        if not isinstance(name, str) or name not in RECIPES:
            return handler(tree)
        for key, value in RECIPES[name].items():
            if key in tree and tree[key] != value:
                raise ValueError(
                    f"recipe {name} sets {key} to {value!r}, but beside it {key} is "
                    f"{tree[key]!r}; leave one of them out"
                )
        section = handler({**tree, **RECIPES[name], "recipe": None})
        # What the recipe sets does not count as given.
        section.model_fields_set.difference_update(RECIPES[name].keys() - tree.keys())
        return section

    @field_validator("modalities", mode="before")
    @classmethod
    def _in_order(cls, given: Any) -> Any:
        names = given.split("+") if isinstance(given, str) else given
        if not isinstance(names, (list, tuple)):
            return given
        ordered = [name for name in ("text", "audio", "video") if name in names]
        return "+".join(ordered) if len(ordered) == len(names) else given

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        MODELS[self.model].check(self)
        return self

    @property
    def fused_modalities(self) -> tuple[str, ...] | None:
        """The modalities that are fused, the anchor first; None for all there are."""
        return None if self.modalities is None else tuple(self.modalities.split("+"))

    @field_validator("changes")
    @classmethod
    def _known_changes(cls, changes: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        for epoch, values in changes.items():
            if epoch < 1:
                raise ValueError(f"changes at epoch {epoch}; epochs count from 1")
            for name in values:
                if name not in cls.CHANGEABLE:
                    raise ValueError(
                        f"{name!r} cannot change in training; these can: "
                        f"{', '.join(cls.CHANGEABLE)}"
                    )
        return dict(sorted(changes.items()))

    @model_validator(mode="after")
    def _legal_changes(self) -> Self:
        for epoch, values in self.changes.items():
            plain = self.model_dump() | values | {"changes": {}}
            try:
                legal = type(self).model_validate(plain)
            except ValidationError as error:
                first = error.errors()[0]
                place = "".join(f"{part}: " for part in first["loc"])
                raise ValueError(
                    f"changes at epoch {epoch}: {place}{reason(first, type(self))}"
                ) from None
            # 1 and 1.0 are one value and must give one key.
            values.update({name: getattr(legal, name) for name in values})
        return self

    def at_epoch(self, epoch: int) -> Self:
        if not self.changes:
            return self
        values: dict[str, Any] = {"changes": {}}
        for start, changed in self.changes.items():
            if start <= epoch:
                values |= changed
        return type(self).model_validate(self.model_dump() | values)

    def _in_epochs(self) -> dict[int, Self]:
        """The section as it is in the first epoch, and in each from which on values change."""
        starts = [start for start in self.changes if 1 < start <= self.epochs]
        return {epoch: self.at_epoch(epoch) for epoch in (1, *starts)}

    def unread(self, given: Given = EVERYTHING) -> dict[str, str]:
        """A field that is read in any epoch is read, but not the value that changes from the first
        epoch on."""
        replaced = dict.fromkeys(self.changes.get(1, ()), "changes replaces it from epoch 1 on")
        return replaced | self._unread_ever(given)

    def _unread_ever(self, given: Given) -> dict[str, str]:
        """The fields that are read in no epoch."""
        first, *others = [super(FusionConfig, s).unread(given) for s in self._in_epochs().values()]
        return {name: why for name, why in first.items() if all(name in other for other in others)}

    def keyed(self, given: Given = EVERYTHING) -> dict[str, Any]:
        """With the values of the first epoch, and those of later ones that differ and are read."""
        unread, sections = self._unread_ever(given), self._in_epochs()
        keyed = _without(sections[1].model_dump(mode="json"), {*unread, "recipe"})
        keyed["changes"], before = {}, sections.pop(1)
        for epoch, section in sections.items():
            values = {name: getattr(section, name) for name in self.CHANGEABLE if name in keyed}
            changed = {name: new for name, new in values.items() if new != getattr(before, name)}
            if changed:
                keyed["changes"][str(epoch)] = changed
            before = section
        return keyed


class Resources(Section):
    """What one stage's worker asks of the cluster."""

    cpu: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    """CPUs; the stage computes with as many threads, rounded up."""
    gpu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """GPUs, or a share of one."""
    memory: ByteSize | None = None
    """Memory, in bytes or as `4GB`; null asks for none in particular."""

    @property
    def num_threads(self) -> int:
        """Threads that the stage computes with."""
        return max(1, math.ceil(self.cpu))


class StageResources(Section):
    """What each trained stage asks for, and those that decode media, which need no GPU."""

    teacher: Resources = Resources()
    audio_media: Resources = Resources()
    video_media: Resources = Resources()
    audio: Resources = Resources()
    video: Resources = Resources()
    fusion: Resources = Resources()


class Config(Section):
    """A whole configuration: what `magtkd train` runs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "magtkd"
    """Name of the run: letters, digits, dot, underscore and hyphen."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    audio_media: AudioMediaConfig = AudioMediaConfig()
    video_media: VideoMediaConfig = VideoMediaConfig()
    audio: AudioConfig = AudioConfig()
    video: VideoConfig = VideoConfig()
    fusion: FusionConfig = FusionConfig()
    resources: StageResources = StageResources()
    """Not part of any stage's key: how much a stage may use, not what it computes."""
