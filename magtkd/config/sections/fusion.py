"""The section of the fusion stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from magtkd.config import declared
from magtkd.config.reasons import reason
from magtkd.config.sections.recipes import RECIPES
from magtkd.config.sections.section import Positive, Rate, Temperature, Weight, Width, without
from magtkd.config.sections.training import TrainingSection
from magtkd.errors import shorten
from magtkd.models import MODELS
from magtkd.reading import EVERYTHING, Choice, Given

__all__ = ["FusionConfig"]

FusedModalities = Literal[
    "text",
    "audio",
    "video",
    "text+audio",
    "text+video",
    "audio+video",
    "text+audio+video",
]
if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[tuple(MODELS)]


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
    modalities: FusedModalities | None = None
    """The modalities that are fused, `text+audio` or `[text, audio]`; null fuses all there are.
    A stage that is then not needed is not trained."""
    gate: Literal["learned", "identity", "none"] = "learned"
    """What follows each encoder: a gate with weights of its own; one with the identity for these
    (SDT for MELD); or none, and SDT then averages the modalities."""
    anchor: bool = True
    """Text attends to the others' refined states and predicts. Without it, all modalities attend to
    each other as they come, and a head on all their states predicts and teaches."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 1
    """Layers of each encoder."""
    num_heads: Width = 8
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
    changes: dict[int, dict[str, Any]] = Field(default={})
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
                    f"{shorten(repr(tree[key]))}; leave one of them out"
                )
        section = handler({**tree, **RECIPES[name], "recipe": None})
        # What the recipe sets does not count as given.
        section.model_fields_set.difference_update(RECIPES[name].keys() - tree.keys())
        return section

    @field_validator(
        "modalities",
        mode="before",
        json_schema_input_type=FusedModalities | list[Literal["text", "audio", "video"]] | None,
    )
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
                        f"{shorten(name)!r} cannot change in training; these can: "
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
        keyed = without(sections[1].model_dump(mode="json"), {*unread, "recipe"})
        keyed["changes"], before = {}, sections.pop(1)
        for epoch, section in sections.items():
            values = {name: getattr(section, name) for name in self.CHANGEABLE if name in keyed}
            changed = {name: new for name, new in values.items() if new != getattr(before, name)}
            if changed:
                keyed["changes"][str(epoch)] = changed
            before = section
        return keyed
