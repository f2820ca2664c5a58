#!/usr/bin/env bash
# All checks: lint, format, types, tests. Arguments go to pytest: bash tools/test.sh -k plan
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

ruff check .
ruff format --check .
mypy
# A process a core, four at most; the tests of a file stay together, since they share what is slow to make.
pytest -n auto --maxprocesses 4 --dist loadfile "$@"
