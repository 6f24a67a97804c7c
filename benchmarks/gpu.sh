#!/bin/bash
# All GPU figures in one call: at most 7 minutes on one GPU with 80 GB, --short at most 4. See benchmarks/gpu.py.
#
#     OUT=gpu-results COMMIT=$(git rev-parse HEAD) benchmarks/gpu.sh [--short] [--parts training,capture]
#
# Needs torch, transformers and accelerate, numpy, scipy, psutil, jinja2, and peft for the part `peers`; no network.
# Nothing has to be installed besides; where a folder .whl lies in the repository's root, its wheels are used.
cd "$(dirname "$0")/.." || exit
export OUT="${OUT:-gpu-results}" PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# Without it, blocks that were freed by one size do not serve another, and the largest batch may not fit.
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"
if [ -d .whl ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
    export PYTHONPATH="/tmp/site:$PWD"
fi
limit=440
for word in "$@"; do [ "$word" = --short ] && limit=255; done
timeout -k 10 "$limit" python3 benchmarks/gpu.py "$@"
status=$?
# A run that was cut leaves what it had.
[ "$status" -ge 124 ] && python3 benchmarks/gpu.py --table "$OUT"
exit "$status"
