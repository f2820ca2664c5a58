"""dvt_plan_and_preprocess: verify, plan and preprocess a data set."""

from __future__ import annotations

from dvtplan.cli.arguments import add_place, parser_of, positive, whole_number
from dvtplan.cli.runner import command, command_process_group


@command
def plan_and_preprocess(argv: list[str]) -> None:
    """dvt_plan_and_preprocess"""
    parser = parser_of(
        "Verify a data set, derive its plan, divide its patients into folds, preprocess its slices.",
        "dvt_plan_and_preprocess --dataset DVT",
    )
    add_place(parser)
    parser.add_argument("--preset", choices=("auto", "paper"), default="auto", help="paper: Huang 2019 to the letter")
    parser.add_argument(
        "--folds",
        type=int,
        help="number of folds by patient; default: as before, else 8; datasets_raw/NAME/splits.json replaces them",
    )
    parser.add_argument("--seed", type=whole_number, help="seed of the folds; default: as before, else 0")
    parser.add_argument("--jobs", type=positive, help="worker processes; default: one per core, as memory allows")
    parser.add_argument("--verify-only", action="store_true", help="stop after verification, write nothing")
    parser.add_argument("--replan", action="store_true", help="derive plan.json again even if it was edited")
    options = parser.parse_args(argv)
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
                jobs=options.jobs,
                verify_only=options.verify_only,
                replan=options.replan,
            ),
            group=group,
        )
    if not group.is_main:
        return
    for warning in result.warnings:
        console.warn(warning)
    print(result.summary)
    print(result.spent)
    print(
        "Verified; nothing was written." if options.verify_only else f"Preprocessed in {result.workspace.preprocessed}"
    )
