#!/usr/bin/env bash
# All checks: lint, format, types, tests. Arguments go to pytest: bash tools/test.sh -k plan
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

ruff check .
ruff format --check .
mypy
pytest "$@"
