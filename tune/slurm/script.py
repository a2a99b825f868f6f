"""The batch scripts that are given to sbatch.

The way of the signals is the reason for most of what is in them. Slurm sends what `--signal=B:...`
asks for to the batch shell alone, which passes it to the driver's `srun`, while Ray keeps running:
only so can what runs be saved. SIGTERM, which `scancel` and the end of the time send, goes to all
processes at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from tune.slurm.request import SIGNAL_SECONDS, JobRequest, Sweep

__all__ = ["JOB_ID_RESOURCE", "sweep_script", "worker_script"]

WAIT_SECONDS = 600
END_OF_SWEEP = "END-OF-SWEEP"
"""No line of a YAML mapping: those that are not indented have a colon."""
JOB_ID_RESOURCE = "NODE_ID_AS_RESOURCE"
"""By this name Ray's autoscaler looks for what distinguishes nodes of one address."""

# What both kinds of scripts begin with. Ray's ports are those that the system gives: its defaults
# are the same for all jobs of a node. Its folder is new, closed to others, and no one can make it
# before; its path must be short. It does not wait for work when it is ended: what can be saved was
# saved before.
_START = """
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}
export RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
unset RAY_ADDRESS RAY_AUTH_TOKEN
{cpus}
python={python}
step=(srun --quiet --overlap --kill-on-bad-exit=0 --wait=0 --cpu-bind=none)
ray=("$python" -P -m ray.scripts.scripts start --block {gpus}
  --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
# Within a step, Slurm gives the number of its CPUs on the node.
on_node='temp=$(mktemp -d "/tmp/ray-$SLURM_JOB_ID.XXXXXX") || exit
  set -- "$@" --temp-dir="$temp" --num-cpus="$SLURM_CPUS_ON_NODE"'
once=(bash -c "$on_node"'; exec "$@"' ray)
"""

_SWEEP = """
# Sweep {name}: Ray's head and the driver on the first node, Ray on all of them. Sent SIGUSR1, it
# saves what runs and is requeued, until the sweep is finished.
cut=0
driver=
trap 'cut=$((cut + 1)); [ -z "$driver" ] || kill -USR1 "$driver"' USR1
logs={logs}
# Its folder must be there when this is submitted: Slurm opens the log in it, and says nothing where
# it cannot.
cat >{file} <<'{end}'
{text}
{end}
# In srun's patterns `%` has a meaning.
log=${{logs//%/%%}}/$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}
echo "--- job $SLURM_JOB_ID, attempt ${{SLURM_RESTART_COUNT:-0}} on $SLURM_JOB_NODELIST: $(date)"
{start}
(umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \\n' >"$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
read -ra place < <("$python" -P -m tune.slurm.head "$SLURM_JOB_ID")
ip=${{place[0]:?}} port=${{place[1]}}

"${{step[@]}}" --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" --output="$log-ray-%N.log" \\
  "${{once[@]}}" "${{ray[@]}}" --head --node-ip-address="$ip" --port="$port" \\
  --include-dashboard=false "${{place[@]:2}}" 2>>"$logs/$SLURM_JOB_ID-ray.log" &
steps=($!)
code=75
until (: <"/dev/tcp/$ip/$port") 2>/dev/null; do
  if [ "$cut" -gt 0 ]; then break; fi
  if ! kill -0 "${{steps[0]}}" 2>/dev/null || [ "$SECONDS" -gt {wait} ]; then
    echo "Ray did not start on $SLURMD_NODENAME: see $logs/$SLURM_JOB_ID-*-ray-$SLURMD_NODENAME.log"
    kill "${{steps[0]}}" 2>/dev/null
    wait "${{steps[0]}}"
    break
  fi
  sleep 1
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  # A node whose network was away for a while ends its Ray, and joins again with another.
  again=(bash -c "$on_node"'; while sleep 1; do "$@"; done' ray)
  others=$((SLURM_JOB_NUM_NODES - 1))
  "${{step[@]}}" --nodes="$others" --ntasks="$others" --ntasks-per-node=1 \\
    --exclude="$SLURMD_NODENAME" --output="$log-ray-%N.log" \\
    "${{again[@]}}" "${{ray[@]}}" --address="$ip:$port" 2>>"$logs/$SLURM_JOB_ID-ray.log" &
  steps+=($!)
fi

if [ "$cut" -eq 0 ] && kill -0 "${{steps[0]}}" 2>/dev/null; then
  "${{step[@]}}" --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \\
    "$python" -P -m tune.cli sweep {arguments} \\
    --address="$ip:$port" --wait-nodes="$SLURM_JOB_NUM_NODES" --wait-seconds={wait} &
  driver=$!
  [ "$cut" -eq 0 ] || kill -USR1 "$driver"
  # A trap ends `wait` before the driver has ended.
  while
    seen=$cut
    wait "$driver"
    code=$?
    [ "$cut" -ne "$seen" ] && [ "$code" -gt 128 ]
  do :; done
  # A signal that came before the driver, or srun, was ready for it ends it, too.
  if [ "$cut" -gt 0 ] && [ "$code" -gt 128 ]; then code=130; fi
fi
kill "${{steps[@]}}" 2>/dev/null
wait "${{steps[@]}}"
if [ "$code" -eq 0 ] || [ "$code" -eq 130 ]; then
  "${{step[@]}}" --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \\
    --ntasks-per-node=1 bash -c 'rm -rf "/tmp/ray-$SLURM_JOB_ID".*' 2>/dev/null
fi
case $code in
  0) ;;
  # What looks like wrong input may be a node without its folders: it is bounded like all else.
  *)
    if "$python" -P -m tune.slurm.progress {name} {storage} "$logs/$SLURM_JOB_ID.json"; then
      scontrol requeue "$SLURM_JOB_ID" || echo "job $SLURM_JOB_ID is not requeued"
    fi
    ;;
esac
exit "$code"
"""

_WORKER = """
# A worker of a sweep whose driver is elsewhere; it ends when the driver's Ray does.
{start}
trap 'rm -rf "/tmp/ray-$SLURM_JOB_ID".* 2>/dev/null' EXIT
"${{step[@]}}" "${{once[@]}}" "${{ray[@]}}" --address={address} \\
  --resources='{{"{resource}": '"$SLURM_JOB_ID"'{gpu_type}}}'
"""


def sweep_script(sweep: Sweep, request: JobRequest) -> str:
    """The script of a job that runs a sweep on all of its nodes, and continues it by itself."""
    directives = [
        f"--job-name=magtkd-{sweep.name}",
        f"--comment={sweep.layout.place}",
        f"--output={_in_pattern(str(sweep.logs))}/%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{SIGNAL_SECONDS}",
    ]
    layout = sweep.layout
    body = _SWEEP.format(
        name=sweep.name,
        logs=shlex.quote(str(sweep.logs)),
        file=shlex.quote(str(sweep.file)),
        text=sweep.text.rstrip("\n"),
        end=END_OF_SWEEP,
        start=_start(request, '"$logs/$SLURM_JOB_ID.token"', request.gpu_resources).strip(),
        arguments=shlex.join(sweep.arguments()),
        storage=shlex.quote(sweep.storage if layout.remote else str(layout.root)),
        wait=WAIT_SECONDS,
    )
    return _with_directives(directives, request) + body


def worker_script(
    name: str, comment: str, request: JobRequest, *, logs: str, token: str, address: str
) -> str:
    """The script of a job that is one node of a sweep's cluster.

    Args:
        name: the job's name.
        comment: the job's comment.
        request: what it asks for.
        logs: the folder of its log.
        token: the file with the cluster's token.
        address: HOST:PORT of the cluster's head.
    """
    directives = [
        f"--job-name={name}",
        f"--comment={comment}",
        f"--output={_in_pattern(logs)}/%j.log",
        "--open-mode=append",
    ]
    body = _WORKER.format(
        start=_start(request, shlex.quote(token)).strip(),
        address=shlex.quote(address),
        resource=JOB_ID_RESOURCE,
        gpu_type="".join(f', "{name}": {n}' for name, n in request.gpu_resources.items()),
    )
    return _with_directives(directives, request) + body


def _with_directives(own: Sequence[str], request: JobRequest) -> str:
    asked = {
        "nodes": request.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": request.cpus_per_node,
        "gpus-per-node": request.gpus_per_node,
        "mem": request.mem,
        "time": request.time,
        "partition": request.partition,
        "account": request.account,
        "chdir": os.getcwd(),
    }
    given = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    # The last one counts, so that those which were given as they stand overrule the others.
    every = [*own, *given, *request.options]
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {shlex.quote(one)}" for one in every)]) + "\n"


def _start(request: JobRequest, token: str, resources: Mapping[str, int] | None = None) -> str:
    cpus, gpus = request.cpus_per_node, request.num_gpus
    options = [] if gpus is None else [f"--num-gpus={gpus}"]
    options += [shlex.quote(f"--resources={json.dumps(resources)}")] if resources else []
    return _START.format(
        token=token,
        # srun does not take it from the job.
        cpus="" if cpus is None else f"export SRUN_CPUS_PER_TASK={cpus}",
        gpus=" ".join(options),
        python=shlex.quote(sys.executable),
    )


def _in_pattern(path: str) -> str:
    """A path in a pattern of sbatch, where `%` has a meaning."""
    return path.replace("%", "%%")
