"""Write a synthetic CE-MR venography cohort of leg vein thrombosis, in the nnU-Net raw layout.

Phantom scores rank methods and reveal bugs; they do not measure clinical accuracy. docs/phantom.md describes the
model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from arguments import at_least, dataset_name
from phantom.centres import CENTRES
from phantom.cohort import EXTRAS, Design, make_cohort
from phantom.difficulty import DIFFICULTIES
from phantom.grid import SCALES


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    sizes = ", ".join(f"{scale.cases} at {name}" for name, scale in SCALES.items())
    parser = argparse.ArgumentParser(
        description="Write a synthetic leg vein thrombosis cohort.",
        epilog="example: python tools/make_phantom.py --root . --scale half --jobs 2",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder that contains datasets_raw/")
    parser.add_argument(
        "--dataset", type=dataset_name, default="Phantom", help="name of the data set (default: Phantom)"
    )
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="size of the volumes (default: tiny)")
    parser.add_argument("--cases", type=at_least(1), help=f"number of cases (default: {sizes})")
    parser.add_argument("--seed", type=at_least(0), default=0, help="equal seeds give equal cohorts (default: 0)")
    parser.add_argument(
        "--difficulty",
        choices=DIFFICULTIES,
        default="default",
        help="noise, contrast in the calf, unfilled veins, gain steps between stations; noiseless: the default "
        "without noise (default: default)",
    )
    parser.add_argument(
        "--centres",
        type=int,
        choices=range(1, len(CENTRES) + 1),
        default=1,
        help="deal the cases to this number of centres, whose scanners differ; cases.csv names them (default: 1)",
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cases made at the same time (default: 1)")
    parser.add_argument("--thrombus-off", action="store_true", help="the same patients without clot")
    parser.add_argument(
        "--extras",
        nargs="+",
        choices=EXTRAS,
        default=(),
        help="further masks, each in its own folder: the exact truth, the map of veins, a second rater's label",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier cohort of this name")
    options = parser.parse_args(arguments)
    design = Design(
        scale=options.scale,
        cases=options.cases,
        seed=options.seed,
        difficulty=options.difficulty,
        thrombus=not options.thrombus_off,
        centres=options.centres,
    )
    try:
        folder = make_cohort(
            options.root,
            design,
            options.dataset,
            jobs=options.jobs,
            extras=options.extras,
            overwrite=options.overwrite,
        )
    except OSError as error:
        print(f"make_phantom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_phantom: interrupted. The cohort is incomplete; make it again with --overwrite.", file=sys.stderr)
        return 130
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
