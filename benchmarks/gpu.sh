#!/usr/bin/env bash
# Everything that a GPU changes, tried in one command of under ten minutes.
#
#     benchmarks/gpu.sh                            on the machine with the GPU; needs no installation
#     benchmarks/gpu.sh --json FILE                the rows as JSON too
#     benchmarks/gpu.sh --only speed waiting       some checks only
#     benchmarks/gpu.sh --pack --python-version 3.12   where there is network: fetch what it may lack
#
# PYTHON=... chooses the interpreter, which has torch and transformers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "${PYTHON:-python3}" "$here/gpu.py" "$@"
