"""Check that a phantom cohort on disk is undamaged, not trivial, and without unintended cues.

Every case is made again from its metadata and compared with its files. The same patient without clot, the
veins and a second rater are made in the same way. Clauses in the table:

(0) files agree with their metadata; (1) naive methods fail even with parameters from the truth; (2) finding
the veins is most of the task, and distal is harder; (3) the cohort has the planned clots; (4) clot does not
change the image elsewhere, and nothing else reveals a patient's pattern; (5) two raters agree as much as
humans do. The performance of networks is not checked.

The cases that fail a row which every case must pass are listed below the table.

    python tools/check_phantom.py --root . --dataset Phantom --jobs 2
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from arguments import at_least
from phantom import VERSION, files
from validation.case_check import CheckError
from validation.cohort_check import NOT_MET, as_json, check_cohort, failures, table


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 all met, 1 not all met, 2 cannot be checked."""
    parser = argparse.ArgumentParser(
        description="Check the files and the difficulty of a phantom cohort.",
        epilog="example: python tools/check_phantom.py --root . --jobs 2",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder that contains datasets_raw/")
    parser.add_argument("--dataset", default="Phantom", help="name of the cohort (default: Phantom)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cases checked at the same time (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and the values of every case")
    parser.add_argument("--cases", type=at_least(1), metavar="N", help="check only the first N cases")
    options = parser.parse_args(arguments)
    try:
        if options.json:
            _verify_writable(options.json)
        results, rows = check_cohort(options.root, options.dataset, options.cases, options.jobs)
    except (CheckError, OSError) as error:
        print(f"check_phantom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("check_phantom: interrupted. There is no result; run it again.", file=sys.stderr)
        return 130
    first, missed = results[0], sum(row.verdict == NOT_MET for row in rows)
    head = f"{options.dataset}: {len(results)} cases, scale {first.scale}, difficulty {first.difficulty}"
    print(f"{head}, generator {VERSION}\n\n{table(rows)}\n")
    if failed := failures(rows):
        print(failed)
    print(f"{missed} of the required rows are NOT MET." if missed else "Every required row is met.")
    if options.json:
        try:
            options.json.write_text(as_json(options.dataset, results, rows), encoding="utf-8")
        except OSError as error:
            print(f"check_phantom: {files.cannot_write(options.json, error, '--json')}", file=sys.stderr)
            return 2
    return 1 if missed else 0


def _verify_writable(path: Path) -> None:
    """Raise an error if the JSON file cannot be written, before the check, which takes minutes."""
    if path.is_dir():
        raise CheckError(f"{path}: expected a file, found a folder. Name a file in it.")
    if not path.resolve().parent.is_dir():
        raise CheckError(f"{path}: its folder does not exist. Make the folder first.")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise CheckError(f"{path}: no permission to write. Fix the permissions or name another file.")


if __name__ == "__main__":
    sys.exit(main())
