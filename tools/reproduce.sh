#!/usr/bin/env bash
# The paper's study in one command: phantom (or your own data set), plan, every network on every fold,
# Tables 1 and 2, the report. Stop it at any time; run it again and it resumes. See --help and --dry-run.
#   bash tools/reproduce.sh --scale tiny --run-folds 0 1 --recipe modern --time-budget 3m
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh
exec python tools/reproduce.py "$@"
