"""`cluster.yaml`: Ray's launcher makes its head and its spot nodes, at moto's EC2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CONFIG = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account as docs/cluster.md asks for it."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a key into ~/.ssh
    (tmp_path / ".ssh").mkdir()
    with moto.mock_aws():
        iam = boto3.client("iam", region_name="us-east-1")
        iam.create_instance_profile(InstanceProfileName="magtkd")
        yield


def test_the_nodes_that_are_asked_for(account: None) -> None:
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import NODE_KIND_HEAD, NODE_KIND_WORKER, TAG_RAY_NODE_KIND

    config = _bootstrap_config(yaml.safe_load(CONFIG.read_text()), no_config_cache=True)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    # What Ray adds by itself is what a sweep with an accelerator type asks for.
    assert types["gpu"]["resources"].keys() == {"CPU", "GPU", "memory", "accelerator_type:A10G"}
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in (("head", NODE_KIND_HEAD), ("gpu", NODE_KIND_WORKER)):
        provider.create_node(types[name]["node_config"], {TAG_RAY_NODE_KIND: kind}, 1)
    head, gpu = made()
    assert (head["InstanceType"], head.get("InstanceLifecycle")) == ("r6i.xlarge", None)
    assert (gpu["InstanceType"], gpu.get("InstanceLifecycle")) == ("g5.2xlarge", "spot")
    for node in (head, gpu):
        assert node["IamInstanceProfile"]["Arn"].endswith("/magtkd")


def made() -> list[dict[str, Any]]:
    shown = boto3.client("ec2", region_name="us-east-1").describe_instances()
    nodes = [node for group in shown["Reservations"] for node in group["Instances"]]
    return sorted(nodes, key=lambda node: "InstanceLifecycle" in node)
