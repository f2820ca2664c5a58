"""Check a phantom cohort on disk against what it has to be: neither damaged, nor trivial, nor leaky.

Every case is made again from its metadata and compared with its files; the same patient without clot, the
veins and a second rater come that way too. The clauses in the table:

(0) files hold what their metadata says; (1) naive methods fail even with parameters from the truth;
(2) finding the veins is most of the task, and distal is the harder part; (3) the cohort has the clots of
the recipe; (4) clot changes an image nowhere else, and nothing else gives a patient's pattern away;
(5) two raters agree as much as people do. What a network reaches is no part of this.

Below the table stand the cases that fail a row which every case has to pass.

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

# ---- the command -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 all met, 1 not all met, 2 nothing to check."""
    parser = argparse.ArgumentParser(description="Check a phantom cohort against what it has to be.")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds datasets_raw/")
    parser.add_argument("--dataset", default="Phantom", help="name of the cohort (default: Phantom)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cases checked at the same time (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and every case's values")
    parser.add_argument("--cases", type=at_least(1), help="only the first so many")
    options = parser.parse_args(arguments)
    try:
        if options.json:
            _verify_writable(options.json)
        results, rows = check_cohort(options.root, options.dataset, options.cases, options.jobs)
    except (CheckError, OSError) as error:
        print(f"check_phantom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("check_phantom: interrupted; nothing is judged, run it again.", file=sys.stderr)
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
    """Refuse a place for the JSON file before the check, which takes minutes."""
    if path.is_dir():
        raise CheckError(f"{path}: expected a file, found a folder; name a file in it.")
    if not path.resolve().parent.is_dir():
        raise CheckError(f"{path}: its folder does not exist; make it first.")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise CheckError(f"{path}: no permission to write; mend it or name another file.")


if __name__ == "__main__":
    sys.exit(main())
