"""Draw the figures of docs/phantom.md: python tools/draw_phantom.py --out docs/images"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from phantom import figures, files
from phantom.case import make_case
from phantom.cohort import Design

SEED = 0
"""Seed of the cohort whose patients are shown."""
PATIENT, CLOTS = 3, (1, 4, 8, 11, 13, 20)
"""Case numbers of the patient shown whole and of the enlarged clots."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        description="Draw the figures of docs/phantom.md.",
        epilog="example: python tools/draw_phantom.py --out docs/images",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the JPEG files")
    out = parser.parse_args(arguments).out
    try:
        files.make_folder(out, "--out")
        _draw(out)
    except OSError as error:
        print(f"draw_phantom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("draw_phantom: interrupted. Run it again to draw all figures.", file=sys.stderr)
        return 130
    for path in sorted(out.glob("phantom_*.jpg")):
        print(path)
    return 0


def _draw(out: Path) -> None:
    requests = Design(scale="paper", seed=SEED).requests()
    case = make_case(requests[PATIENT - 1], diagnostics=False)
    figures.draw_patient(case, out / "phantom_patient.jpg")
    figures.draw_axial_sections(case, out / "phantom_sections.jpg")
    figures.draw_clot_examples([requests[number - 1] for number in CLOTS], out / "phantom_clots.jpg")
    figures.draw_variants(requests[PATIENT - 1], out / "phantom_scales.jpg")


if __name__ == "__main__":
    sys.exit(main())
