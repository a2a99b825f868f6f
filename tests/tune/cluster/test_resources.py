"""What stages ask of nodes: shapes, labels, default shares, and what fits nowhere."""

from __future__ import annotations

import pytest
import ray
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from magtkd.config import NodeType, Resources, StageResources
from magtkd.errors import SweepError
from tune.cluster import Node, Shape, check_resources, node_types, shape_of, with_gpu_shares
from tune.cluster.shape import label_matches

GIB = float(1 << 30)


def node(name="h1", labels=None, **totals):
    return Node(name=name, labels=labels or {}, totals=totals)


def stages(**fields):
    return StageResources(fusion=Resources(**fields))


# --- shapes ---------------------------------------------------------------------------------------


def test_a_shape_becomes_the_options_of_an_actor():
    resources = Resources(
        cpu=2,
        gpu=0.5,
        memory="3GiB",
        accelerator_type="H100",
        label_selector={"market": "!spot"},
        custom={"licence": 1},
    )
    options = shape_of(resources).options()
    assert options == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 3 * GIB,
        "accelerator_type": "H100",
        "label_selector": {"market": "!spot"},
        "resources": {"licence": 1},
    }
    ray.remote(dict).options(**options)  # Ray takes them as they are
    assert str(shape_of(resources)) == "2 CPU, 0.5 GPU, H100, 1 licence, 3 GiB, label market=!spot"


def test_what_is_not_asked_for_is_not_in_the_shape():
    assert shape_of(Resources()) == Shape((("CPU", 1.0),))
    assert shape_of(Resources(gpu=0)).options() == {"num_cpus": 1, "num_gpus": 0}


@pytest.mark.parametrize(
    ("wanted", "value", "matches"),
    [
        ("spot", "spot", True),
        ("spot", "other", False),
        ("spot", None, False),
        ("!spot", "other", True),
        ("!spot", None, True),
        ("!spot", "spot", False),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("in(a)", None, False),
        ("!in(a, b)", "c", True),
        ("!in(a, b)", "a", False),
    ],
)
def test_labels_match_as_ray_has_it(wanted, value, matches):
    assert label_matches(wanted, value) is matches


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gpu": 1.5}, "1.5: Ray gives shares of one GPU, or whole ones"),
        ({"label_selector": {"zone": "in(a"}}, r"zone: 'in\(a' is no selector of Ray's"),
        ({"custom": {"licence": 0}}, "greater than 0"),
        ({"memory": "much"}, "could not parse value and unit"),
        ({"custom": {"CPU": 3}}, "'CPU' is no custom resource; CPUs, GPUs, memory and the kind"),
        ({"custom": {"accelerator_type:H100": 1}}, "'accelerator_type:H100' is no custom resource"),
        ({"custom": {"": 1}}, "'' is no custom resource"),
    ],
)
def test_what_ray_would_not_take_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Resources(**fields)


# --- what fits ------------------------------------------------------------------------------------


def test_a_stage_must_fit_on_one_node_and_not_on_the_sum():
    nodes = [node(f"h{number}", CPU=1.0) for number in (1, 2, 3)]
    check_resources(stages(cpu=1), nodes)
    message = (
        r"resources\.fusion\.cpu: asks for 2 CPU, but the cluster's largest node, h1, has 1 CPU, "
        r"0 GPU; lower it, start Ray on a larger node, or name in resources\.node_types"
    )
    with pytest.raises(SweepError, match=message):
        check_resources(stages(cpu=2), nodes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gpu": 4}, r"resources\.fusion\.gpu: asks for 4 GPU, but .* h2, has 4 CPU, 2 GPU, A100"),
        ({"memory": "64GiB"}, r"fusion\.memory: asks for 64 GiB, but .* h1, has .*, 32 GiB"),
        ({"accelerator_type": "H100"}, r"fusion\.accelerator_type: asks for H100, but .* A100"),
        ({"custom": {"licence": 1}}, r"fusion\.custom\.licence: asks for 1 licence, but the"),
        ({"label_selector": {"zone": "b"}}, r"fusion\.label_selector: no node has the labels of"),
        ({"gpu": 1, "cpu": 8}, r"resources\.fusion: asks for 8 CPU, 1 GPU on one node, but"),
    ],
)
def test_the_message_names_what_is_missing_and_the_largest_node(fields, message):
    nodes = [
        node("h1", CPU=16.0, memory=32 * GIB, labels={"zone": "a"}),
        node("h2", CPU=4.0, GPU=2.0, memory=16 * GIB, **{"accelerator_type:A100": 1.0}),
    ]
    with pytest.raises(SweepError, match=message):
        check_resources(stages(**fields), nodes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cpu": 1e-6}, r"fusion: asks for 1e-06 CPU, which Ray refuses: The precision of .*; ch"),
        ({"gpu": 1e-6}, r"1e-06 GPU, which Ray refuses: The precision of the fractional quantity"),
        ({"custom": {"TPU": 1.5}}, r"fusion: asks for 1 CPU, 1\.5 TPU, which Ray refuses: "),
        ({"label_selector": {"a b": "x"}}, r"which Ray refuses: Invalid label key name `a b`"),
    ],
)
def test_what_ray_refuses_is_refused_before_the_sweep(fields, message):
    """The engine would find out when it asks for a worker, and wait for one that never comes."""
    everything = node("h1", CPU=4.0, GPU=1.0, TPU=4.0, labels={"a b": "x"})
    with pytest.raises(SweepError, match=message):
        check_resources(stages(**fields), [everything])


def test_a_node_type_of_the_autoscaler_is_as_good_as_a_node():
    types = node_types({"gpu": NodeType(cpu=8, gpu=1, accelerator_type="H100")})
    check_resources(stages(gpu=1, accelerator_type="H100"), [node(CPU=2.0)], types)
    with pytest.raises(SweepError, match=r"asks for 2 GPU, but the cluster's largest node, gpu"):
        check_resources(stages(gpu=2), [node(CPU=2.0)], types)
    with pytest.raises(SweepError, match="the cluster has no node"):
        check_resources(stages(), [])


def test_node_types_come_from_the_file_of_ray_up(tmp_path):
    path = tmp_path / "ray_bootstrap_config.yaml"
    assert node_types({}, path) == ()
    tree = {
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8, "labels": {"a": "b"}},
        }
    }
    path.write_text(yaml.safe_dump(tree))
    (found,) = node_types({}, path)
    assert (found.name, found.totals, found.labels) == ("gpu", {"CPU": 8, "GPU": 1}, {"a": "b"})
    assert [one.name for one in node_types({"own": NodeType(cpu=1)}, path)] == ["own"]
    odd = "available_node_types: {gpu: {resources: {CPU: [many]}}}"
    for damaged in ("[1", "7", "available_node_types: 3", odd):
        path.write_text(damaged)
        assert node_types({}, path) == ()


# --- default shares of a GPU ----------------------------------------------------------------------


def test_where_there_are_gpus_each_stage_has_a_share():
    resources, line = with_gpu_shares(StageResources(), {"teacher"}, [node(CPU=8.0, GPU=1.0)])
    shares = {stage: getattr(resources, stage).gpu for stage in StageResources.STAGES}
    assert shares == {
        "teacher": 1,
        "audio_media": 0,
        "video_media": 0,
        "audio": 0.25,
        "video": 0.25,
        "fusion": 0.25,
    }
    assert line == (
        "GPUs by default: teacher 1, audio 0.25, video 0.25, fusion 0.25; resources.STAGE.gpu sets "
        "them, and 0 hides them"
    )


def test_where_there_are_none_no_stage_asks_for_one():
    resources, line = with_gpu_shares(StageResources(), {"teacher"}, [node(CPU=8.0)])
    assert {getattr(resources, stage).gpu for stage in StageResources.STAGES} == {0}
    assert line == ""


shares = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0]))


@given(teacher=shares, fusion=shares, num_gpus=st.integers(0, 2))
def test_what_is_given_stays(teacher, fusion, num_gpus):
    given = StageResources(teacher=Resources(gpu=teacher), fusion=Resources(gpu=fusion))
    found, line = with_gpu_shares(given, {"teacher"}, [node(GPU=float(num_gpus))])
    for stage in StageResources.STAGES:
        before, after = getattr(given, stage), getattr(found, stage)
        assert after.gpu == before.gpu if before.gpu is not None else after.gpu is not None
        assert after.cpu == before.cpu
        if before.gpu is not None:
            assert f"{stage} " not in line


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"cpu": 1}, 8),
        ({"cpu": 0.1}, 80),
        ({"cpu": 3}, 2),
        ({"cpu": 1, "gpu": 0.25}, 4),
        ({"cpu": 1, "gpu": 2}, 0),
        ({"cpu": 1, "label_selector": {"market": "spot"}}, 0),
    ],
)
def test_how_many_workers_fit_on_a_node(fields, number):
    shape = shape_of(Resources(**fields))
    assert Node(name="a", totals={"CPU": 8.0, "GPU": 1.0}).room_for(shape) == number
