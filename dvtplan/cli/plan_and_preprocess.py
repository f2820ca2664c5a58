"""dvt_plan_and_preprocess: verify, plan and preprocess a data set."""

from __future__ import annotations

from dvtplan.cli.arguments import add_place, add_trust, parser_of, positive, whole_number
from dvtplan.cli.runner import command, command_process_group, for_command_line


@command
def plan_and_preprocess(argv: list[str]) -> None:
    """dvt_plan_and_preprocess"""
    parser = parser_of(
        "Verify a data set, make its plan, split its patients into folds, and preprocess its slices.",
        "dvt_plan_and_preprocess --dataset DVT",
    )
    add_place(parser)
    parser.add_argument(
        "--preset",
        choices=("auto", "paper"),
        default="auto",
        help="how to plan: auto adapts to the data set, paper follows Huang et al. 2019 exactly",
    )
    parser.add_argument(
        "--folds",
        type=whole_number,
        help="number of folds, split by patient; default: as before, else 8; splits.json in the data set replaces them",
    )
    parser.add_argument("--seed", type=whole_number, help="random seed of the folds; default: as before, else 0")
    parser.add_argument(
        "--folds-by",
        metavar="COLUMN",
        help="leave one group out at a time: a fold for each value of this column of cases.csv, such as centre",
    )
    parser.add_argument("--jobs", type=positive, help="worker processes; default: one per core, if memory suffices")
    parser.add_argument("--verify-only", action="store_true", help="only verify the data set; write nothing")
    parser.add_argument("--replan", action="store_true", help="make plan.json again, even if it was edited")
    add_trust(parser)
    options = parser.parse_args(argv)
    if options.folds_by is not None and (options.folds is not None or options.seed is not None):
        parser.error("--folds-by cannot be used with --folds or --seed")
    from dvtplan.core import worker_pool

    if options.jobs != 1:
        worker_pool.preload("dvtplan.planning.preprocess")
    from dvtplan.core import console
    from dvtplan.planning import preprocess

    with command_process_group() as group:
        result = preprocess.plan_and_preprocess(
            options.root,
            options.dataset,
            options=preprocess.PreprocessOptions(
                preset=options.preset,
                folds=options.folds,
                seed=options.seed,
                folds_by=options.folds_by,
                jobs=options.jobs,
                verify_only=options.verify_only,
                replan=options.replan,
                trust=options.trust,
            ),
            group=group,
        )
    if not group.is_main:
        return
    for warning in result.warnings:
        console.warn(warning)
    print(for_command_line(result.summary))
    print(result.timing)
    print(
        "Verified; nothing was written." if options.verify_only else f"Preprocessed in {result.workspace.preprocessed}"
    )
