"""`deploy/Dockerfile`, whose steps are executed in an empty Debian root, and in it the job of
`deploy/rayjob.yaml`: its entrypoint on a cluster with a head, a worker and a token."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.debian_root import DebianRoot, build, missing_tools
from tune.ledger import SweepLayout, read_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
TRIALS = 4
# As KubeRay starts head and worker: the GPU is declared. Its probes call wget.
JOB = """
set -e
ray start --head --num-cpus=0 --node-ip-address=127.0.0.1 --object-store-memory=100000000 >head.txt
ray start --address=127.0.0.1:6379 --num-cpus=2 --num-gpus=1 --node-ip-address=127.0.0.1 \
    --object-store-memory=100000000 >worker.txt
wget -q -O- http://localhost:52365/api/local_raylet_healthz | grep -q success
wget -q -O- http://localhost:8265/api/gcs_healthz | grep -q success
ray job submit --address http://127.0.0.1:8265 -- {entrypoint}
ray job submit --address http://127.0.0.1:8265 -- {entrypoint}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRoot]:
    if missing := missing_tools():
        pytest.skip(f"needs {missing}")
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o755)
    yield build(ROOT / "deploy" / "Dockerfile", ROOT, root)
    shutil.rmtree(root, ignore_errors=True)  # some GiB


def rayjob() -> dict[str, Any]:
    text = (ROOT / "deploy" / "rayjob.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_image_has_what_it_needs(image: DebianRoot) -> None:
    code, out = image.run("magtkd --version && magtkd doctor && id -un", own_network=True)
    assert code == 0, out
    assert out.splitlines()[-1] == "magtkd"  # not root


def small_sweep() -> str:
    text: str = rayjob()["ConfigMap"]["data"]["sweep.yaml"]
    assert "num_trials: 64" in text
    return text.replace("num_trials: 64", f"num_trials: {TRIALS}")


def test_its_job_starts_the_sweep_and_then_finds_it_finished(image: DebianRoot) -> None:
    job = rayjob()["RayJob"]["spec"]
    (image.path / "etc/magtkd").mkdir()
    (image.path / "etc/magtkd/sweep.yaml").write_text(small_sweep())
    script = JOB.format(
        entrypoint=job["entrypoint"].replace("s3://bucket/magtkd", "/home/magtkd/results")
    )
    code, out = image.run(
        script,
        own_network=True,
        timeout=600,
        RAY_AUTH_MODE=job["rayClusterSpec"]["authOptions"]["mode"],
        RAY_AUTH_TOKEN="0" * 64,
    )
    assert code == 0, out
    assert "Traceback" not in out
    state = read_sweep(SweepLayout(image.path / "home/magtkd/results", "quickstart"))
    assert state.closed == "finished"
    assert state.count() == {"completed": TRIALS}
