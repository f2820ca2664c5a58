"""Measure the errors of estimated knee joint lines and levels on a phantom cohort.

    python tools/knee_error.py --root . --dataset Phantom

The estimate uses the image and its grid; only the comparison uses the metadata. Each image is tested as a whole, and
cropped to the thighs and to the calves, where any estimate is an error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from arguments import at_least, print_error
from validation.knee_error import measure, summarize

from dvtplan.core import worker_pool
from dvtplan.core.errors import DvtError


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="example: python tools/knee_error.py --root . --dataset Phantom",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder that contains datasets_raw/")
    parser.add_argument("--dataset", default="Phantom", help="name of the cohort (default: Phantom)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cases measured at the same time (default: 1)")
    options = parser.parse_args(arguments)
    folder = options.root / "datasets_raw" / options.dataset
    try:
        cases = sorted((folder / "metadata").glob("*.json"))
        if not cases:
            raise DvtError(f"{folder}: contains no phantoms. Make a cohort with tools/make_phantom.py.")
        names = [path.stem for path in cases]
        found = worker_pool.over_cases(measure, cases, names, title="Find knees", jobs=options.jobs)
    except DvtError as error:
        print_error("knee_error", error)
        return 1
    print("\n".join(summarize(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
