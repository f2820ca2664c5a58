#!/usr/bin/env bash
# All checks: lint, format, types, tests. Arguments go to pytest: bash tools/test.sh -k plan
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh

ruff check .
ruff format --check .
mypy
# One process per core, at most four. Each starts with a contiguous block of tests, because the tests of a file share
# slow fixtures; an idle process takes tests from the end of another's block.
pytest -n auto --maxprocesses 4 --dist worksteal "$@"
