"""dvt_report: write the HTML report of all scored networks."""

from __future__ import annotations

from dvtplan.cli.arguments import add_place, parser_of, positive, whole_number, workspace_of
from dvtplan.cli.runner import command


@command
def report(argv: list[str]) -> None:
    """dvt_report"""
    parser = parser_of(
        "Write one HTML report of all scored networks: tables, figures, and images of every test patient.",
        "dvt_report --dataset DVT --patients 5",
    )
    add_place(parser)
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="NETWORK",
        help="networks to report; images show the first; default: all with metrics.csv",
    )
    parser.add_argument("--folds", type=whole_number, nargs="+", help="folds to report; default: all that were scored")
    parser.add_argument(
        "--patients",
        type=positive,
        metavar="N",
        help="show images of the N worst and the N best patients; default: of every patient",
    )
    parser.add_argument("--jobs", type=positive, help="worker processes; default: chosen by the number of patients")
    options = parser.parse_args(argv)
    from dvtplan.core import text
    from dvtplan.reporting.report import write_report

    done = write_report(workspace_of(options), options.networks, options.folds, options.patients, options.jobs)
    size = text.size(done.html.stat().st_size)
    print(f"{done.html} ({size}, {done.drawn} of {done.patients} patients drawn)")
    print(f"{len(done.figures)} figures, PNG and PDF, in {done.figures[0].parent}")
