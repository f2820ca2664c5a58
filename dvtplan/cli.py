"""The commands. Each parses, imports its stage, calls it, and prints what was written.

Stages are imported after parsing, so that ``--help`` is quick and ``dvt_evaluate`` never loads torch.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvtplan import __version__, team
from dvtplan.errors import DvtError

if TYPE_CHECKING:
    from dvtplan.records import Recipe
    from dvtplan.workspace import FoldFolder, Workspace

AUTO = "auto"
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it; a DvtError gives 1, a wrong option 2."""


def _command(main: Callable[[list[str]], None]) -> Callable[[], None]:
    """A console script: one line for what the user can mend, a traceback only for our own faults."""

    @functools.wraps(main)
    def script() -> None:
        try:
            main(sys.argv[1:])
        except DvtError as error:
            sys.exit(_one_line(Path(sys.argv[0]).name, str(error)))
        except KeyboardInterrupt:
            print("\nInterrupted; what was finished is kept.", file=sys.stderr)
            sys.exit(INTERRUPTED)

    return script


def _one_line(command: str, message: str) -> str:
    """What an error leaves on the screen: under torchrun the first process tells it whole, the others say which
    they are."""
    rank, world = team.place()
    if rank == 0:
        return f"{command}: {message}"
    return f"{command} (process {rank + 1} of {world}): {message.splitlines()[0]}"


@contextlib.contextmanager
def _gathered() -> Iterator[team.Team]:
    """The processes that torchrun started for this command, or this one alone, which does without torch."""
    if not team.under_torchrun():
        yield team.Team()
        return
    from dvtplan import parallel

    with parallel.joined("cpu") as group:
        yield group


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults are told where there is one to tell, and where the help does not tell it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, False, argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if silent else super()._get_help_string(action)


def _parser(what: str, example: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=what,
        epilog=f"example: {example}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dvtplan {__version__}")
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds datasets_raw")
    parser.add_argument("--dataset", help="name in datasets_raw; needed only where there are several")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, cpu or mps")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: what the device does best")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="use torch.compile")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, help="memory layout of images")


@_command
def plan_and_preprocess(argv: list[str]) -> None:
    """dvt_plan_and_preprocess"""
    parser = _parser(
        "Verify a data set, derive its plan, divide its patients into folds, prepare its slices.",
        "dvt_plan_and_preprocess --dataset DVT",
    )
    _add_place(parser)
    parser.add_argument("--preset", choices=("auto", "paper"), default="auto", help="paper: Huang 2019 to the letter")
    parser.add_argument(
        "--folds", type=int, help="by patient; default: as before, else 8; datasets_raw/NAME/splits.json wins"
    )
    parser.add_argument("--seed", type=_whole, help="of the folds; default: as before, else 0")
    parser.add_argument("--jobs", type=_positive, help="processes; default: one per core, as memory allows")
    parser.add_argument("--verify-only", action="store_true", help="stop after verification, write nothing")
    parser.add_argument("--replan", action="store_true", help="derive plan.json anew even if it was edited")
    options = parser.parse_args(argv)
    from dvtplan import preprocess

    with _gathered() as group:
        made = preprocess.plan_and_preprocess(
            options.root,
            options.dataset,
            preset=options.preset,
            n_folds=options.folds,
            seed=options.seed,
            jobs=options.jobs,
            verify_only=options.verify_only,
            replan=options.replan,
            team=group,
        )
    if not group.leads:
        return
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(made.summary)
    print(made.spent)
    print("Verified; nothing was written." if options.verify_only else f"Prepared in {made.workspace.preprocessed}")


@_command
def train(argv: list[str]) -> None:
    """dvt_train"""
    parser = _parser("Train folds and predict their test patients.", "dvt_train 0 --recipe quick --time-budget 20m")
    parser.add_argument("fold", nargs="+", help="fold numbers, or all")
    _add_place(parser)
    parser.add_argument("--network", default="gn_unet", help="which network to train")
    parser.add_argument(
        "--gpus",
        type=_positive,
        default=1,
        metavar="N",
        help="data-parallel processes, one per GPU; several folds run side by side",
    )
    parser.add_argument(
        "--workers", type=_whole, help="reading processes; 0 keeps slices in memory; default: as they fit"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last finished epoch; of several folds, begin those not begun",
    )
    again.add_argument("--overwrite", action="store_true", help="begin anew where a training already is")
    parser.add_argument(
        "--time-budget", type=seconds, metavar="TIME", help="as many epochs as fit, at most the recipe's: 90s, 20m, 8h"
    )
    parser.add_argument("--only", type=_whole, help=argparse.SUPPRESS)
    _add_recipe(parser)
    _add_machine(parser)
    options = parser.parse_args(argv)
    workspace = _workspace(options)
    folds = _fold_numbers(options.fold, workspace)
    begun = [k for k in folds if workspace.fold(options.network, k).checkpoint.exists()]
    if team.restarts() and not options.overwrite:
        options.resume = bool(begun)
    if options.only is None and len(folds) > 1 and options.gpus > 1 and not team.under_torchrun():
        _side_by_side(folds, options, argv)
        return
    for fold in folds if options.only is None else [options.only]:
        recipe, resume = _recipe(options), options.resume and (fold in begun or not begun)
        if recipe is None and options.resume and not resume:
            recipe = _recipe_of(workspace.fold(options.network, begun[0]))  # as the folds that were begun
        _train_and_predict(workspace, fold, recipe, resume, options)


def _recipe_of(folder: FoldFolder) -> Recipe:
    from dvtplan import artifacts
    from dvtplan.records import Run

    return artifacts.load(Run, folder.run, "dvt_train").recipe


def _train_and_predict(
    workspace: Workspace, fold: int, recipe: Recipe | None, resume: bool, options: argparse.Namespace
) -> None:
    from dvtplan import devices, predict
    from dvtplan.train import Options, train_fold

    folder = train_fold(
        workspace,
        fold,
        network=options.network,
        recipe=recipe,
        epochs=getattr(options, "epochs", None),
        options=Options(
            device=options.device,
            precision=options.precision,
            channels_last=options.channels_last,
            compiled=options.compile,
            processes=options.gpus,
            workers=options.workers,
            resume=resume,
            overwrite=options.overwrite,
            batch_size_auto=getattr(options, "batch_size", None) == AUTO,
            time_budget_s=options.time_budget,
        ),
    )
    if team.is_first():
        setup = devices.choose(
            options.device, precision=options.precision, channels_last=options.channels_last, compiled=False
        )
        predict.predict_fold(workspace, options.network, fold, setup=setup)
        print(folder.path)


def _side_by_side(folds: list[int], options: argparse.Namespace, argv: list[str]) -> None:
    """Train a fold per GPU, each in a process of its own, until all are done."""
    from dvtplan import devices, parallel

    slots = [["--device", name] for name in devices.each(options.device, options.gpus)]
    commands = [[sys.executable, "-m", "dvtplan.cli", "train", *argv, "--gpus", "1", "--only", str(k)] for k in folds]
    failed = [k for k, status in zip(folds, parallel.run_queue(commands, slots), strict=True) if status]
    if failed:
        raise DvtError(
            f"fold {', '.join(map(str, failed))}: failed, see above; the others are trained. Go on with --resume."
        )


def _fold_numbers(words: list[str], workspace: Workspace) -> list[int]:
    """Fold numbers as written, each once, or every fold for 'all'."""
    from dvtplan import artifacts
    from dvtplan.records import Splits

    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    there = [fold.index for fold in splits.folds]
    if "all" in words:
        return there
    wrong = [word for word in words if not word.isdecimal() or int(word) not in there]
    if wrong:
        raise DvtError(
            f"fold {wrong[0]}: {workspace.splits} holds the folds 0 to {there[-1]}. Name some of them, or all."
        )
    return list(dict.fromkeys(int(word) for word in words))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if _whole(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def _batch_size(text: str) -> int | str:
    return text if text == AUTO else _positive(text)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe", "each overrides one field of the recipe and lands in run.json")
    group.add_argument(
        "--recipe", choices=("paper", "quick"), default=argparse.SUPPRESS, help="paper (default), or quick for a laptop"
    )
    for name, (kind, meaning) in _RECIPE_FIELDS.items():
        metavar = "N" if kind in (_positive, _whole, _batch_size) else "X"
        group.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, metavar=metavar, help=meaning
        )
    group.add_argument(
        "--target",
        choices=("auto", "lesion", "labels"),
        default=argparse.SUPPRESS,
        help="lesion: the union of all labels; default: by the labels' names",
    )


def _recipe(options: argparse.Namespace) -> Recipe | None:
    """The recipe that the options name; none where they name nothing but epochs."""
    from dvtplan import recipes

    fields = (*_RECIPE_FIELDS, "target")
    given = {name: value for name, value in vars(options).items() if name in fields and name != "epochs"}
    if given.get("batch_size") == AUTO:
        given["batch_size"] = 1  # until the training has tried what is fastest
    if not given and not hasattr(options, "recipe"):
        return None
    return recipes.override(getattr(options, "recipe", "paper"), **given)


def _shares(text: str) -> tuple[float, ...]:
    """'0.6,0.85', or 'none'."""
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no list of shares; write 0.6,0.85 or none") from None


_RECIPE_FIELDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "epochs": (_positive, "passes over the training slices; paper 250, quick 60"),
    "batch_size": (_batch_size, "slices per step, over all processes, or auto for what is fastest; paper 2, quick 4"),
    "learning_rate": (float, "Adam's step size at the start; 1e-3"),
    "lr_factor": (float, "what it is multiplied with at each drop; 0.1"),
    "lr_drops": (_shares, "shares of the epochs after which it drops; paper 0.6,0.85, quick 0.75,0.92"),
    "beta1": (float, "Adam's momentum; 0.9"),
    "focal_gamma": (float, "focusing exponent of the loss; 2"),
    "focal_alpha": (float, "weight of the foreground, from 0 to 1; paper none, quick 0.75"),
    "oversampling": (float, "share of an epoch drawn from slices with lesions, labels in turn; paper 0, quick 0.5"),
    "norm_groups": (_positive, "groups of each group normalization; 32"),
    "width": (_positive, "channels of the first level; 32"),
    "seed": (_whole, "of weights, order and variants; 0"),
}


def seconds(text: str) -> float:
    """'90s', '20m' or '8h' in seconds, as the type of an option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no time with its unit; write 90s, 20m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _millimetres(text: str) -> float:
    if re.fullmatch(r"\d+(?:\.\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} is no distance in mm from 0")
    return float(text)


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is no share such as 1/4 or 4/4")
    return int(match[1]), int(match[2])


def _regions(text: str) -> tuple[str, ...]:
    names = tuple(text.split("/"))
    if len(set(names)) != len(names) or not all(names):
        raise argparse.ArgumentTypeError(f"{text} names a region twice, or none; write proximal/distal")
    return names


def _workspace(options: argparse.Namespace) -> Workspace:
    from dvtplan.workspace import open_workspace

    return open_workspace(options.root, options.dataset)


@_command
def predict(argv: list[str]) -> None:
    """dvt_predict"""
    parser = _parser(
        "Find thrombus on scans with a trained model; masks lie on the scans' own grids.",
        "dvt_predict -i scan.nii.gz -o mask.nii.gz --model results/DVT/gn_unet",
    )
    parser.add_argument(
        "-i", "--input", type=Path, required=True, help="a volume, a folder of volumes, or a folder or ZIP of DICOM"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder, or a file for a single volume")
    parser.add_argument(
        "--model", type=Path, required=True, help="a results folder; its trained folds predict together"
    )
    parser.add_argument(
        "--series", nargs="+", metavar="N", help="of DICOM: the series to take, one for each channel of the model"
    )
    parser.add_argument(
        "--stations", nargs="+", metavar="S", help="overlapping series, or files of a folder, to compose into one scan"
    )
    parser.add_argument("--folds", type=int, nargs="+", help="default: all that are trained")
    parser.add_argument("--save-probabilities", action="store_true", help="write a probability volume per class too")
    parser.add_argument(
        "--burden",
        type=Path,
        metavar="CSV",
        help="write there how much was found in each limb, how long and how far up",
    )
    parser.add_argument(
        "--levels", type=Path, metavar="CSV", help="a cases.csv with the levels that divide proximal from distal"
    )
    parser.add_argument("--overwrite", action="store_true", help="make masks anew that are already there")
    parser.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="the I-th of N shares of a folder; run all N, side by side or on a cluster",
    )
    _add_machine(parser)
    options = parser.parse_args(argv)
    from dvtplan import dataset, devices, findings, parallel, predict, scans

    rank, world = team.place()
    if world > 1 and options.part is not None:
        raise DvtError("--part and torchrun both share the scans out. Use one of them.")
    if options.levels is not None and options.burden is None:
        raise DvtError("--levels divides what --burden measures. Give both.")
    if options.burden is not None and (world > 1 or options.part is not None):
        raise DvtError("--burden measures all scans at once. Run it again without --part or torchrun; masks are kept.")
    table = {} if options.levels is None else dataset.read_cases_table(options.levels)
    setup = devices.choose(
        parallel.local_device(options.device),
        precision=options.precision,
        channels_last=options.channels_last,
        compiled=bool(options.compile),
    )
    print(setup.remark, file=sys.stderr)
    model = predict.load_model(options.model, folds=options.folds, setup=setup)
    written = predict.predict_path(
        options.input,
        options.output,
        model,
        overwrite=options.overwrite,
        save_probabilities=options.save_probabilities,
        part=(rank + 1, world) if world > 1 else options.part,
        series=options.series,
        stations=options.stations,
    )
    if options.burden is not None:
        masks = {scans.stem(path): path for path in (written[:1] if options.stations else written)}
        levels = {case_id: levels for case_id, (_, levels) in table.items()}
        written.append(findings.write(masks, levels, options.burden))
    for path in written:
        print(path)


@_command
def evaluate(argv: list[str]) -> None:
    """dvt_evaluate"""
    parser = _parser(
        "Score predictions against the truth: metrics.csv and Table 1.",
        "dvt_evaluate --split proximal/distal",
    )
    _add_place(parser)
    parser.add_argument(
        "--split",
        type=_regions,
        metavar="A/B",
        help="regions, such as proximal/distal; default: what labels and levels allow",
    )
    parser.add_argument(
        "--rule",
        choices=("auto", "identity", "level"),
        default="auto",
        help="divide by the truth's labels, or at each limb's level in cases.csv",
    )
    parser.add_argument("--network", default="gn_unet", help="whose predictions")
    parser.add_argument(
        "--compare", nargs="+", metavar="NETWORK", help="several networks: Table 2, the first against each other"
    )
    parser.add_argument("--folds", type=int, nargs="+", help="default: all that have predictions")
    parser.add_argument("--labels", type=Path, help="folder of true masks, to score anyone's --predictions against")
    parser.add_argument(
        "--predictions", type=Path, help="folder of predicted masks of the same names; goes with --labels"
    )
    parser.add_argument(
        "--predicted", choices=("auto", "lesion", "labels"), default="auto", help="what values in --predictions mean"
    )
    parser.add_argument("--out", type=Path, help="where the tables of --predictions go; default: into that folder")
    parser.add_argument("--tolerance", type=_millimetres, default=2.0, metavar="MM", help="of surface Dice")
    parser.add_argument("--jobs", type=_positive, help="processes; default: as the data are large")
    parser.add_argument("--pictures", action="store_true", help="draw prediction over truth for every test patient")
    options = parser.parse_args(argv)
    from dvtplan import evaluate

    if (options.labels is None) != (options.predictions is None):
        parser.error("--labels and --predictions go together")
    if options.compare and (options.labels is not None or options.pictures):
        parser.error("--compare goes with neither --labels and --predictions nor --pictures")
    done: evaluate.Evaluation | evaluate.Compared
    if options.predictions is not None:
        done = evaluate.evaluate_folders(
            options.labels,
            options.predictions,
            options.out or options.predictions,
            options.split,
            options.rule,
            predicted=options.predicted,
            dataset=None if options.dataset is None else _workspace(options).raw,
            jobs=options.jobs,
            tolerance_mm=options.tolerance,
        )
    elif options.compare:
        workspace = _workspace(options)
        done = evaluate.compare_networks(
            workspace,
            options.compare,
            options.split,
            options.folds,
            options.rule,
            options.jobs,
            tolerance_mm=options.tolerance,
        )
    else:
        workspace = _workspace(options)
        done = evaluate.evaluate(
            workspace,
            options.network,
            options.split,
            options.folds,
            options.rule,
            options.jobs,
            tolerance_mm=options.tolerance,
        )
    print(done.text)
    written = list(done.written)
    if options.pictures and options.predictions is None:
        from dvtplan import report

        written += report.draw_cases(workspace, options.network, options.folds)
    print("\n".join(map(str, written)))


@_command
def report(argv: list[str]) -> None:
    """dvt_report"""
    parser = _parser(
        "Write one HTML page on all scored networks: tables, figures, and pictures of every test patient.",
        "dvt_report --dataset DVT --patients 5",
    )
    _add_place(parser)
    parser.add_argument(
        "--networks", nargs="+", metavar="NETWORK", help="the first is pictured; default: all with metrics.csv"
    )
    parser.add_argument("--folds", type=int, nargs="+", help="default: all that were scored")
    parser.add_argument(
        "--patients", type=_positive, metavar="N", help="draw the N worst and the N best; default: every patient"
    )
    parser.add_argument("--jobs", type=_positive, help="processes; default: as there are many patients")
    options = parser.parse_args(argv)
    from dvtplan import journal
    from dvtplan import report as stage

    done = stage.write(_workspace(options), options.networks, options.folds, options.patients, options.jobs)
    size = journal.size(done.html.stat().st_size)
    print(f"{done.html} ({size}, {done.drawn} of {done.patients} patients drawn)")
    print(f"{len(done.figures)} figures, PNG and PDF, in {done.figures[0].parent}")


if __name__ == "__main__":
    _COMMANDS = {
        "plan_and_preprocess": plan_and_preprocess,
        "train": train,
        "predict": predict,
        "evaluate": evaluate,
        "report": report,
    }
    name = sys.argv.pop(1)
    sys.argv[0] = f"dvt_{name}"  # what messages and --help call it
    _COMMANDS[name]()
