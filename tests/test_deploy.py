"""The configurations of clusters: valid by the schemas of those who read them, and of one mind
with the rest of the repository. What they do is tested in `tests/cluster`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tune.config import load_sweep

ROOT = Path(__file__).parents[1]
CRD = os.environ.get("KUBERAY_CRD", "")


def rayjob() -> dict[str, Any]:
    text = (ROOT / "deploy" / "rayjob.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/workstations.yaml"])
def test_ray_accepts_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / name).read_text())
    validate_config(prepare_config(config))
    # Each of these is a traceback of `ray up` where it is missing.
    mounted = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert mounted
    assert all((ROOT / path).exists() for path in mounted)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in one for one in starts if "ray start" in one)
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        validate_config(prepare_config(config | {"colour": "blue"}))


def test_the_sweep_of_the_rayjob(tmp_path: Path) -> None:
    job = rayjob()
    (tmp_path / "sweep.yaml").write_text(job["ConfigMap"]["data"]["sweep.yaml"])
    sweep = load_sweep(tmp_path / "sweep.yaml")
    spec = job["RayJob"]["spec"]
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    node = sweep.resources.node_types["gpu"]
    asked = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (f"{node.cpu:g}", f"{node.gpu:g}") == (asked["cpu"], asked["nvidia.com/gpu"])
    assert group["maxReplicas"] == sweep.resources.max_workers


def test_the_rayjob_names_the_image_and_the_ray_that_are_here() -> None:
    job = rayjob()["RayJob"]["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert job["rayVersion"] == pinned[1]
    image = job["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    assert image in (ROOT / "deploy" / "Dockerfile").read_text()
    assert image in (ROOT / "docs" / "cluster.md").read_text()


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema as JSON Schema, in which fields that it does not have are errors: Kubernetes
    drops them silently, as it would a field with a typing error."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: closed(one) for name, one in made["properties"].items()}
        made["additionalProperties"] = made.get("x-kubernetes-preserve-unknown-fields", False)
    elif isinstance(made.get("additionalProperties"), dict):
        made["additionalProperties"] = closed(made["additionalProperties"])
    if "items" in made:
        made["items"] = closed(made["items"])
    return made


@pytest.mark.skipif(
    not CRD,
    reason="KUBERAY_CRD names no file with KubeRay's CRD of RayJobs, as `kubectl get crd "
    "rayjobs.ray.io --output yaml` shows it",
)
def test_kuberay_accepts_the_rayjob() -> None:
    tree = yaml.load(Path(CRD).read_text(), yaml.CSafeLoader)
    versions = {one["name"]: one["schema"]["openAPIV3Schema"] for one in tree["spec"]["versions"]}
    schema = closed(versions["v1"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    check = jsonschema.Draft7Validator(schema)
    job = rayjob()["RayJob"]
    assert list(check.iter_errors(job)) == []
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["envForm"] = head.pop("envFrom")
    assert [error.message for error in check.iter_errors(job)] == [
        "Additional properties are not allowed ('envForm' was unexpected)"
    ]
