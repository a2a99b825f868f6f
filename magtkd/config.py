"""The configuration: one section per stage, one seed, checked before anything runs.

Imports no torch, so that a trial, which only passes configurations on, stays small.
"""

from __future__ import annotations

import difflib
import io
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, overload

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from magtkd.errors import ConfigError

__all__ = [
    "AudioConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "FusionConfig",
    "Resources",
    "Section",
    "StageResources",
    "SyntheticConfig",
    "TeacherConfig",
    "TrainingSection",
    "VideoConfig",
    "dump_yaml",
    "get_value",
    "has_name",
    "load_config",
    "names_of",
    "nearest",
    "read_config_file",
    "validate",
    "with_values",
]

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen section that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


class SyntheticConfig(Section):
    """Conversations made up by a Markov chain of emotions; see `magtkd.data.synthetic`."""

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

    path: str | None = None
    """A Parquet file in the schema, or a folder with MELD's three CSV files. In a file, relative
    to that file; on the command line, to the working directory."""
    synthetic: SyntheticConfig | None = None
    """Instead of `path`: a corpus that is made up."""
    dev_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the train conversations that become dev where the table has no dev split."""
    speakers: Literal["conversation", "name"] = "conversation"
    """Number speakers by their first turn within each conversation, or by name over the corpus
    (names that train lacks share one number)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is not None and self.synthetic is not None:
            raise ValueError("path and synthetic exclude each other; set one of them to null")
        return self


class TrainingSection(Section):
    """What every trained stage has."""

    epochs: Positive = 10
    """Passes over train."""
    batch_size: Positive = 16
    """Conversations a batch."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """AdamW's peak learning rate."""
    weight_decay: Weight = 1e-4
    """AdamW's decoupled weight decay."""
    hidden_dim: Positive = 64
    """Width of the stage's hidden features."""
    dropout: Rate = 0.1
    """Dropout rate."""
    gradient_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """Gradients are clipped to this norm."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic on CUDA (autocast); a CPU always computes in float32."""
    schedule: Literal["constant", "linear", "published"] = "constant"
    """Learning rate over the steps: constant; linear warm-up, then linear decay to 0; or the
    published code's warm-up, which counts conversations while stepping per batch."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all steps that the `linear` schedule warms up."""
    patience: Positive | None = None
    """Stop when this many epochs in a row brought no better dev metric; null never stops."""
    select: Literal["weighted_f1", "accuracy", "loss"] = "weighted_f1"
    """The dev metric that chooses the epoch whose weights are kept."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the cross-entropy: none, or inversely proportional to their
    frequency in train."""

    def at_epoch(self, epoch: int) -> Self:
        """The section as it is in this epoch (from 1)."""
        return self


class TeacherConfig(TrainingSection):
    """The text teacher."""

    batch_size: Positive = 32
    """Utterances a batch."""
    encoder: Annotated[str, Field(min_length=1)] = "features"
    """`features` for the table's text features; `tiny` for a small randomly initialised
    transformer; or a transformers text encoder, by model id or folder."""
    prompt_length: Annotated[int, Field(ge=0)] = 0
    """Trained prompt vectors before the mask token; needs a transformers encoder."""
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
        if self.prompt_length > self.max_length // 2:
            raise ValueError(
                f"prompt_length is {self.prompt_length}; keep it at most half of max_length, "
                f"{self.max_length}"
            )
        return self


class DistillConfig(Section):
    """How a student learns from the teacher: `CE + logit_weight * logit + feature_weight * feature`
    (arXiv 2506.18716; the logit loss is DIST's)."""

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


class StudentConfig(TrainingSection):
    """A student of one modality."""

    batch_size: Positive = 32
    """Utterances a batch."""
    distill: DistillConfig | None = DistillConfig()
    """Distillation from the teacher; null trains on the labels alone."""


class AudioConfig(StudentConfig):
    """The audio student."""


class VideoConfig(StudentConfig):
    """The video student."""


class FusionConfig(TrainingSection):
    """The fusion of the modalities."""

    epochs: Positive = 30
    """Passes over train."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """AdamW's peak learning rate."""
    weight_decay: Weight = 1e-6
    """AdamW's decoupled weight decay."""
    dropout: Rate = 0.5
    """Dropout rate."""
    model: Literal["magt", "concat"] = "magt"
    """The multi-modal anchor gated transformer, or two layers on the concatenated features."""
    depth: Positive = 1
    """Layers of each of MAGT's encoders."""
    num_heads: Positive = 8
    """Attention heads; they divide hidden_dim."""
    audio_weight: Weight = 0.01
    """Weight of the audio head's loss."""
    video_weight: Weight = 0.08
    """Weight of the video head's loss."""
    feature_weight: Weight = 0.0
    """Weight of the feature loss inside the audio and video heads' loss (IEMOCAP: 1)."""
    temperature: Temperature = 1.0
    """Temperature of the logit and feature losses between the heads."""
    inter_weight: Weight = 1.0
    """Weight of the logit loss over the classes of each utterance."""
    intra_weight: Weight = 1.0
    """Weight of the logit loss over the utterances of each class."""
    detach_anchor: bool = False
    """Keep the audio and video losses from moving the text side, unlike the published code."""
    changes: dict[int, dict[str, Any]] = {}
    """Values that change on the way: `{epoch: {name: value}}`, from that epoch (from 1) on. How a
    configuration that population based training found is written down."""

    CHANGEABLE: typing.ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "weight_decay",
        "dropout",
        "gradient_norm",
        "audio_weight",
        "video_weight",
        "feature_weight",
        "temperature",
        "inter_weight",
        "intra_weight",
        "detach_anchor",
    )
    """The values that leave shapes, data order and epochs alone, and so may change on the way."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.model == "magt" and self.hidden_dim % self.num_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}, which does not divide hidden_dim, "
                f"{self.hidden_dim}; choose a divisor"
            )
        if self.model == "magt" and self.hidden_dim % 2:
            raise ValueError(
                f"hidden_dim is {self.hidden_dim}; the sinusoidal position code needs an even one"
            )
        return self

    @field_validator("changes")
    @classmethod
    def _known_changes(cls, changes: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        for epoch, values in changes.items():
            if epoch < 1:
                raise ValueError(f"changes at epoch {epoch}; epochs count from 1")
            for name in values:
                if name not in cls.CHANGEABLE:
                    raise ValueError(
                        f"{name!r} cannot change on the way; these can: {', '.join(cls.CHANGEABLE)}"
                    )
        return dict(sorted(changes.items()))

    @model_validator(mode="after")
    def _legal_changes(self) -> Self:
        for epoch, values in self.changes.items():
            plain = self.model_dump() | values | {"changes": {}}
            try:
                legal = type(self).model_validate(plain)
            except ValidationError as error:
                place = ".".join(map(str, error.errors()[0]["loc"]))
                raise ValueError(
                    f"changes at epoch {epoch}: {place}: {values.get(place)!r} is not legal: "
                    f"{error.errors()[0]['msg']}"
                ) from None
            # 1 and 1.0 are one value and must give one key.
            values.update({name: getattr(legal, name) for name in values})
        return self

    def at_epoch(self, epoch: int) -> Self:
        values: dict[str, Any] = {"changes": {}}
        for start, changed in self.changes.items():
            if start <= epoch:
                values |= changed
        return type(self).model_validate(self.model_dump() | values)


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
    """What each trained stage asks for."""

    teacher: Resources = Resources()
    audio: Resources = Resources()
    video: Resources = Resources()
    fusion: Resources = Resources()


class Config(Section):
    """A whole configuration: what `magtkd train` runs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "magtkd"
    """A name for people: letters, digits, dot, underscore and hyphen."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    audio: AudioConfig = AudioConfig()
    video: VideoConfig = VideoConfig()
    fusion: FusionConfig = FusionConfig()
    resources: StageResources = StageResources()
    """Not part of any stage's key: how much a stage may use, not what it computes."""


ConfigT = TypeVar("ConfigT", bound=Config)


# --- names and values -------------------------------------------------------------------------


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The model class inside an annotation such as `DistillConfig | None`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        for inner in typing.get_args(annotation):
            if (found := _section_of(inner)) is not None:
                return found
    return None


def names_of(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """All dotted names of a configuration's values, sections themselves left out."""
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from names_of(section, f"{prefix}{name}.")


def has_name(name: str, model: type[BaseModel] = Config) -> bool:
    """Whether a dotted name is one of the configuration's values."""
    return name in set(names_of(model))


def nearest(name: str, known: Sequence[str] | Iterator[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def get_value(config: BaseModel, name: str) -> Any:
    """The value under a dotted name; None where a section on the way is null."""
    value: Any = config
    for part in name.split("."):
        if value is None:
            return None
        value = getattr(value, part)
    return value


def with_values(config: ConfigT, values: Mapping[str, Any], *, source: str = "values") -> ConfigT:
    """A copy with some values replaced by dotted name, validated as a whole.

    A null section on the way is created with its defaults, so `audio.distill.temperature` may be
    set where `audio.distill` was null.

    Raises:
        ConfigError: a name that does not exist or a value that is not legal.
    """
    tree = config.model_dump()
    for name, value in values.items():
        *parents, last = name.split(".")
        node: Any = tree
        for parent in parents:
            if not isinstance(node, dict):
                break
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
        if not isinstance(node, dict):
            raise ConfigError(
                f"{source}: {name}: no such name{nearest(name, names_of(type(config)))}"
            )
        node[last] = value
    return validate(type(config), tree, source)


# --- reading ----------------------------------------------------------------------------------


def validate(model: type[ConfigT], tree: Mapping[str, Any], source: str) -> ConfigT:
    """Validate a tree of plain values; `source` leads the error message.

    Raises:
        ConfigError: one line for the first thing that is wrong, and how many more there are.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_one_line(model, error)}") from None


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    details = error.errors(include_url=False)
    first = details[0]
    place = [str(part) for part in first["loc"]]
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        hint = nearest(place[-1], known) or f"; known are {', '.join(known)}"
        if place[0] in {"space", "search", "scheduler", "objective"} and len(place) == 1:
            hint = "; this is a sweep file, for `magtkd sweep`"
        return f"{'.'.join(place)}: unknown key{hint}{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    where = ".".join(place) or "configuration"
    given = first["input"]
    if first["type"] == "value_error":
        return f"{where}: {message}{more}"
    return f"{where}: {given!r} is not legal: {message}{more}"


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys of the section at a place; the numbers in it count a list's items."""
    owner = model
    for part in place:
        if isinstance(part, str):
            annotation = owner.model_fields[part].annotation
            items = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
            owner = _section_of(items[0] if items else annotation) or owner
    return list(owner.model_fields)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"{path}: cannot read the configuration: {reason}; give the path of a YAML file"
        ) from None
    try:
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    except OSError:  # OmegaConf's word for a file that is one number
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: the top level is not a mapping; write sections such as `fusion: {{depth: 2}}`"
        )
    return typing.cast(dict[str, Any], tree)


def read_config_file(path: str | Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A configuration file with everything that it `extends` merged below it, as a plain tree.

    `extends` and `data.path` are relative to the file that says them.

    Raises:
        ConfigError: a file that cannot be read, is not YAML, or extends itself.
    """
    path = Path(path)
    if path.resolve() in _seen:
        chain = " -> ".join(str(seen) for seen in (*_seen, path.resolve()))
        raise ConfigError(f"{path}: extends itself: {chain}")
    tree = _read_yaml(path)
    base = tree.pop("extends", None)
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        data["path"] = str((path.parent / Path(data["path"]).expanduser()).resolve())
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: {base!r} is not the name of a file")
    base_path = path.parent / base
    if not base_path.is_file():
        raise ConfigError(f"{path}: extends: there is no file {base_path}")
    parent = read_config_file(base_path, (*_seen, path.resolve()))
    # Spaces are whole: a sweep that extends another and names a space means only that space.
    if "space" in tree:
        parent.pop("space", None)
    merged = OmegaConf.merge(OmegaConf.create(parent), OmegaConf.create(tree))
    return typing.cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))


@overload
def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config: ...


@overload
def load_config(
    path: str | Path | None, overrides: Sequence[str], model: type[ConfigT]
) -> ConfigT: ...


def load_config(
    path: str | Path | None, overrides: Sequence[str] = (), model: type[Config] = Config
) -> Config:
    """Read, merge, override and validate a configuration.

    Args:
        path: a YAML file; None for the defaults.
        overrides: `key=value` with dotted keys; values are read as YAML.
        model: `Config`, or a subclass with more sections.

    Raises:
        ConfigError: anything that is wrong, in one line.
    """
    tree = read_config_file(path) if path is not None else {}
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {override!r}: write it as key=value")
        value = _override_value(override, raw)
        if key.strip() == "data.path" and isinstance(value, str):
            value = str(Path(value).expanduser().resolve())
        node: dict[str, Any] = tree
        *parents, last = key.strip().split(".")
        for parent in parents:
            child = node.get(parent)
            if child is None:
                child = node[parent] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"override {override!r}: {parent} is a value, not a section")
            node = child
        node[last] = value
    return validate(model, tree, str(path or "configuration"))


def _override_value(override: str, raw: str) -> Any:
    # OmegaConf's YAML reads `1e-4` as the number that people mean, and not as a string.
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        raise ConfigError(
            f"override {override!r}: the value is not valid YAML; quote it, or write null, a "
            "number, [a list] or {a: mapping}"
        ) from None
    return typing.cast(dict[str, Any], parsed)["value"]


def dump_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    text: str = yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )
    return text


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes what only OmegaConf's reader takes for a number, such as the name `1e5`."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        float(text)
    except ValueError:
        style = None
    else:
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
