"""Read many damaged scans; each must be read right, or be refused in one line.

    python tools/fuzz_readers.py --count 150

The damage follows from the seed, so a failure can be repeated. Exit status 1 if there is a failure.
"""

from __future__ import annotations

import argparse
import sys

from arguments import at_least, print_error
from fuzzing.sound_inputs import KINDS
from fuzzing.trial import FAILURES, Outcome, summarize, try_damaged

from dvtplan.core import worker_pool
from dvtplan.core.errors import DvtError


def _try(item: tuple[str, int]) -> Outcome:
    return try_damaged(*item)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog="example: python tools/fuzz_readers.py --kinds nifti nrrd"
    )
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS], help="kinds of scans (default: all)")
    parser.add_argument("--count", type=at_least(1), default=150, help="damaged scans of each kind (default: 150)")
    parser.add_argument("--first", type=at_least(0), default=0, help="first seed (default: 0)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="scans read at the same time (default: 1)")
    parser.add_argument("--verbose", action="store_true", help="print every outcome")
    options = parser.parse_args(arguments)
    items = [(kind, options.first + k) for kind in options.kinds for k in range(options.count)]
    try:
        names = [f"{kind} {seed}" for kind, seed in items]
        outcomes = worker_pool.over_cases(_try, items, names, title="Read damaged scans", jobs=options.jobs)
    except DvtError as error:
        print_error("fuzz_readers", error)
        return 1
    if options.verbose:
        print("\n".join(one.line for one in outcomes))
    print("\n".join(summarize(outcomes)))
    return int(any(one.verdict in FAILURES for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
