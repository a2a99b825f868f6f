"""Ray's autoscaler adds and removes nodes by this provider: each is a Slurm job of one node.

Ray loads it in the autoscaler's process, on the head, by the name in the file that `worker_jobs`
writes. The autoscaler knows nodes by their addresses, which two jobs of one host share; it takes
their jobs' ids instead where the nodes have them as a resource.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray.autoscaler.batching_node_provider import (
    BatchingNodeProvider,
    NodeData,
    ScaleRequest,
)
from ray.autoscaler.tags import NODE_KIND_HEAD, NODE_KIND_WORKER, STATUS_UP_TO_DATE

from magtkd.errors import MagtkdError, SweepError
from tune.slurm.commands import Job, cancel, queued, submit

__all__ = ["HEAD", "HEAD_ID", "WORKER", "SlurmProvider"]

HEAD, WORKER = "head", "worker"
HEAD_ID = str(1 << 30)
"""In the place of a job's id, which is below that."""
PAUSE_SECONDS = 60.0
"""After a job that Slurm refused, as for a quota that others' jobs fill, or that ended at once."""
YOUNG_SECONDS = 10.0


class SlurmProvider(BatchingNodeProvider):  # type: ignore[misc]
    """Workers as Slurm jobs.

    Args:
        provider_config: `script`, the file with a worker's batch script, `job_name` and
            `comment`, by which its jobs are found, and `problems`, a file for lines on what
            Slurm refused.
        cluster_name: unused.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._script = Path(provider_config["script"]).read_text(encoding="utf-8")
        self._job_name = provider_config["job_name"]
        self._comment = provider_config["comment"]
        self._problems = Path(provider_config["problems"])
        self._is_known, self._not_before = False, 0.0
        self._young: dict[str, float] = {}
        """When the last jobs were submitted, by their ids."""

    def get_node_data(self) -> dict[str, NodeData]:
        """The head, and the jobs in the queue."""
        try:
            jobs = queued(self._job_name, self._comment)
            self._is_known = True
        except MagtkdError as error:  # Slurm's controller is away; the jobs are not
            self._report(error)
            self._is_known = False
            jobs = []
        head = NodeData(kind=NODE_KIND_HEAD, type=HEAD, ip=HEAD_ID, status=STATUS_UP_TO_DATE)
        return {HEAD_ID: head} | {job.id: _data(job) for job in jobs if job.state != "COMPLETING"}

    def safe_to_scale(self) -> bool:
        """Whether Slurm said which jobs there are."""
        return self._is_known

    def submit_scale_request(self, scale_request: ScaleRequest) -> None:
        """Cancel and submit jobs."""
        to_end = scale_request.workers_to_delete
        workers = [id for id, one in self.node_data_dict.items() if one.kind == NODE_KIND_WORKER]
        missing = scale_request.desired_num_workers.get(WORKER, 0) - len(set(workers) - to_end)
        try:
            cancel(sorted(to_end))
            for id in to_end:
                self._young.pop(id, None)
            self._check_young(set(workers))
            for _ in range(missing if time.monotonic() >= self._not_before else 0):
                self._young[submit(self._script)] = time.monotonic()
        except MagtkdError as error:
            self._not_before = time.monotonic() + PAUSE_SECONDS
            self._report(error)

    def _check_young(self, queued: set[str]) -> None:
        """Submit no more for a while where jobs end as soon as they start, as on nodes that lack
        something, or cannot be found in the queue."""
        now = time.monotonic()
        young = {id for id, since in self._young.items() if now - since < YOUNG_SECONDS}
        self._young = {id: self._young[id] for id in young}
        if gone := sorted(self._young.keys() - queued):
            self._young.clear()
            self._not_before = now + PAUSE_SECONDS
            self._report(
                SweepError(
                    f"job {gone[0]} left the queue within {YOUNG_SECONDS:.0f} s: see its log; the "
                    f"next one is submitted in {PAUSE_SECONDS:.0f} s"
                )
            )

    def _report(self, error: MagtkdError) -> None:
        with self._problems.open("a", encoding="utf-8") as file:
            print(error, file=file)


def _data(job: Job) -> NodeData:
    """A job that runs counts as up; any other state says what it waits for."""
    status = STATUS_UP_TO_DATE if job.state == "RUNNING" else job.state.lower()
    return NodeData(kind=NODE_KIND_WORKER, type=WORKER, ip=job.id, status=status)
