from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magtkd import pipeline
from magtkd.config import Config, with_values
from magtkd.data import prepare, read_corpus
from magtkd.errors import ConfigError, DataError, InputError
from magtkd.media.clips import Clips
from magtkd.pipeline import make_plan, source_of, train_stage
from magtkd.store import Artifact

pytest.importorskip("av")
MakeConfig = Callable[..., Config]


Make = Callable[[str, Config], Artifact]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a media stage's artifact, its clips in a folder that the test owns."""

    def make_stage(stage: str, config: Config) -> Artifact:
        corpus = read_corpus(config.data)
        plan = make_plan(config, source_of(corpus))
        data = train_stage("data", config, plan, {}, corpus=corpus)
        return train_stage(stage, config, plan, {"data": data}, scratch=tmp_path / "scratch")

    return make_stage


def clips_of(artifact: Artifact, config: Config) -> Clips:
    data = prepare(read_corpus(config.data), config.data, config.seed)
    return Clips(artifact.table, artifact.media, data)


@pytest.fixture
def broken(clip_corpus: Path, tmp_path: Path) -> Path:
    """The corpus without one clip, and with two that are damaged."""
    shutil.copytree(clip_corpus.parent, tmp_path / "broken")
    folder = tmp_path / "broken/train"
    (folder / "dia0_utt0.mp4").unlink()
    (folder / "dia1_utt1.mp4").write_bytes(b"")
    content = (folder / "dia2_utt0.mp4").read_bytes()
    (folder / "dia2_utt0.mp4").write_bytes(content[: len(content) // 2])
    return tmp_path / "broken/table.parquet"


@pytest.mark.parametrize("stage", ["audio_media", "video_media"])
def test_clips_that_cannot_be_read_are_listed(
    make: Make, clip_config: MakeConfig, broken: Path, stage: str
) -> None:
    message = (
        rf"^{stage}: 3 of 35 clips cannot be read: dialogue train/0, utterance 0 "
        r"\(train/dia0_utt0\.mp4: there is no such file\); dialogue train/1, utterance 1 .*"
        rf"dialogue train/2, utterance 0 .*set {stage}\.on_missing=(silence|black)$"
    )
    with pytest.raises(DataError, match=message):
        make(stage, clip_config({"data.path": str(broken)}))


@pytest.mark.parametrize(("stage", "how"), [("audio_media", "silence"), ("video_media", "black")])
def test_clips_that_cannot_be_read_are_replaced_only_when_that_is_said(
    make: Make, clip_config: MakeConfig, broken: Path, stage: str, how: str
) -> None:
    config = clip_config({"data.path": str(broken), f"{stage}.on_missing": how})
    artifact = make(stage, config)
    assert len(artifact.metrics["missing"]) == 3
    (warning,) = artifact.metrics["warnings"]
    assert warning.startswith(f"{stage}: 3 of 35 clips cannot be read and became {how}: dialogue")
    clips = clips_of(artifact, config)
    silent = [row for row in range(len(clips)) if not clips[row].any()]
    assert len(silent) == 3
    if stage == "audio_media":
        assert {len(clips[row]) for row in silent} == {16_000}


def test_paths_that_leave_the_folder_are_not_read(
    make: Make, clip_config: MakeConfig, clip_corpus: Path, tmp_path: Path
) -> None:
    table = pq.read_table(clip_corpus)
    outside = [f"../{clip_corpus.parent.name}/{name}" for name in table["video_path"].to_pylist()]
    index = table.column_names.index("video_path")
    pq.write_table(table.set_column(index, "video_path", [outside]), tmp_path / "t.parquet")
    config = clip_config({"data.path": str(tmp_path / "t.parquet")})
    with pytest.raises(DataError, match=r"35 of 35 clips .*leads out of it") as caught:
        make("audio_media", config)
    assert str(caught.value).count("leads out of it") == 35


def test_a_hundred_clips_that_cannot_be_read_are_named(
    make: Make, clip_config: MakeConfig, clip_corpus: Path, tmp_path: Path
) -> None:
    table = pq.read_table(clip_corpus)
    dialogues = table.column_names.index("dialogue_id")
    copies = []
    for copy in range(3):
        names = [f"{name}-{copy}" for name in table["dialogue_id"].to_pylist()]
        copies.append(table.set_column(dialogues, "dialogue_id", [names]))
    pq.write_table(pa.concat_tables(copies), tmp_path / "t.parquet")
    config = clip_config({"data.path": str(tmp_path / "t.parquet")})
    (tmp_path / "train").mkdir()
    (tmp_path / "train/dia0_utt0.mp4").write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"105 of 105 clips .*; and 5 more; check") as caught:
        make("audio_media", config)
    assert str(caught.value).count(".mp4: ") == 100


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_titles_in_other_characters_do_not_keep_a_clip_from_being_read(
    make: Make, clip_config: MakeConfig, clip_corpus: Path, tmp_path: Path, suffix: str
) -> None:
    av = pytest.importorskip("av")
    source, target = clip_corpus.parent / "train/dia0_utt0.mp4", tmp_path / f"titled.{suffix}"
    with av.open(str(source)) as there, av.open(str(target), "w") as here:
        here.metadata["title"] = "scene at the cafe"
        streams = {one: here.add_stream_from_template(one) for one in there.streams}
        for packet in there.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                here.mux(packet)
    content = target.read_bytes()
    assert content.count(b"the cafe") == 1
    target.write_bytes(content.replace(b"the cafe", "the café".encode("latin-1")))
    table = pq.read_table(clip_corpus)
    paths = [target.name] * table.num_rows
    table = table.set_column(table.column_names.index("video_path"), "video_path", [paths])
    pq.write_table(table, tmp_path / "t.parquet")
    config = clip_config({"data.path": str(tmp_path / "t.parquet")})
    for stage in ("audio_media", "video_media"):
        artifact = make(stage, config)
        assert not artifact.metrics["missing"]
        assert clips_of(artifact, config)[0].any()


def test_clips_lie_where_data_media_says(
    make: Make, clip_config: MakeConfig, clip_corpus: Path, tmp_path: Path
) -> None:
    table = shutil.copy(clip_corpus, tmp_path / "t.parquet")
    here = clip_config()
    there = clip_config({"data.path": str(table), "data.media": str(clip_corpus.parent)})
    one, other = (make("audio_media", config) for config in (here, there))
    assert one.key == other.key
    assert Path(one.media).read_bytes() == Path(other.media).read_bytes()


def test_another_seed_or_more_threads_find_the_same_clips(
    make: Make, clip_config: MakeConfig
) -> None:
    one = make("video_media", clip_config())
    other = make("video_media", clip_config({"seed": 7, "resources.video_media.cpu": 3}))
    assert one.key == other.key
    assert one.table.equals(other.table)
    assert Path(one.media).read_bytes() == Path(other.media).read_bytes()


def test_frames_are_as_the_encoder_asks(make: Make, clip_config: MakeConfig) -> None:
    config = clip_config()
    assert clips_of(make("video_media", config), config).shape == (4, 16, 16, 3)
    said = with_values(config, {"video_media": {"num_frames": 4, "image_size": 16}})
    corpus = source_of(read_corpus(config.data))
    assert make_plan(config, corpus).keys == make_plan(said, corpus).keys


def test_an_encoder_that_does_not_say_how_many_frames(
    clip_config: MakeConfig, tiny_models: dict[str, Path]
) -> None:
    config = clip_config({"video.encoder": str(tiny_models["roberta"])})
    with pytest.raises(
        ConfigError, match=r"has no num_frames in its configuration.*set video_media\.num_fra"
    ):
        make_plan(config, source_of(read_corpus(config.data)))


def test_nothing_is_left_of_a_stage_that_failed(
    clip_config: MakeConfig, broken: Path, tmp_path: Path
) -> None:
    from magtkd.pipeline import run_chain
    from magtkd.store import Store

    config = clip_config({"data.path": str(broken), "teacher.encoder": "tiny"})
    with pytest.raises(DataError, match="3 of 35 clips"):
        run_chain(config, Store(tmp_path / "store"))
    assert not list((tmp_path / "store/tmp").iterdir())


def test_decoding_needs_pyav(
    make: Make, clip_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"needs PyAV.*pip install 'magtkd\[media\]'"):
        make("audio_media", clip_config())
    assert pipeline.find_stage("audio_media").version == 1
