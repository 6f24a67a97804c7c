#!/usr/bin/env bash
# Compare two checkpoints on the same prompts, and end with the exit code of the gates:
#
#     examples/compare_in_ci.sh BASE VARIANT OUT [OPTION]...
#
# Options go to `harness compare`. OUT/run holds the report; OUT/gates.xml (JUnit), OUT/gates.sarif and OUT/gates.md are
# for the CI. In GitHub Actions the step summary gets the gates by itself.
set -euo pipefail
base=$1 variant=$2 out=$3
shift 3
mkdir -p "$out"
harness compare "$base" "$variant" --output "$out/run" --quiet "$@"
harness check "$out/run" --gates "${GATES:-$(dirname "$0")/gates.yaml}" \
    --junit "$out/gates.xml" --sarif "$out/gates.sarif" --markdown "$out/gates.md"
