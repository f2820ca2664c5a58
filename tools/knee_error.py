"""Measure on a phantom cohort how far estimated knee joint lines and levels are off, and when there is none.

    python tools/knee_error.py --root . --dataset Phantom

The estimate sees the image and its grid; only the comparison sees the metadata. Each image is tried whole, and cut to
its thighs and to its calves, where there is nothing to be found and a guess would be a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from validation.knee_error import measure, told

from dvtplan.core import worker_pool
from dvtplan.core.errors import DvtError


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="example: python tools/knee_error.py --root . --dataset Phantom",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder that holds datasets_raw/")
    parser.add_argument("--dataset", default="Phantom", help="its name (default: Phantom)")
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time (default: 1)")
    options = parser.parse_args(arguments)
    folder = options.root / "datasets_raw" / options.dataset
    try:
        cases = sorted((folder / "metadata").glob("*.json"))
        if not cases:
            raise DvtError(f"{folder}: holds no phantoms. Make some with tools/make_phantom.py.")
        names = [path.stem for path in cases]
        found = worker_pool.over_cases(measure, cases, names, title="Find knees", jobs=options.jobs)
    except DvtError as error:
        print(f"knee_error: {error}", file=sys.stderr)
        return 1
    print("\n".join(told(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
