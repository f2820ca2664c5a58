"""Give nnU-Net the same files, fold, cores and time; train its 2-D configuration and predict the test patients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from compare.inputs import ending_of, link
from compare.methods import Method
from compare.settings import MADE_BY, Setup
from compare.stages import Planned, Stage, once
from dvtplan.core.errors import DvtError
from dvtplan.core.files import write_text
from dvtplan.core.text import show
from dvtplan.data import dataset_json
from dvtplan.data.dataset import Dataset, discover
from dvtplan.data.folds import Splits

NAME = "nnU-Net 2D"
FOLDER = "nnunet"
TIMED = Path(__file__).absolute().with_name("timed_trainer.py")
NUMBER = 1
"""nnU-Net's number of the data set."""
ENDINGS = (".nii.gz", ".nrrd", ".mha")
"""File endings that both programs read."""
MOST_WORKERS = 12
"""nnU-Net's default number of processes for augmentation, if there are as many cores."""


def prepare(setup: Setup, splits: Splits, programs: Path, wanted: Sequence[int]) -> list[int]:
    """Convert, plan and preprocess, as far as it is not done; return the batch sizes to compare.

    Args:
        setup: of the comparison.
        splits: all folds.
        programs: folder of nnU-Net's commands.
        wanted: batch sizes; one that is larger than that of nnU-Net's plan becomes that of the plan.

    Raises:
        DvtError: if a command fails.
    """
    folder, threads = setup.folder(FOLDER), str(setup.conditions.threads)
    name = write_raw(discover(setup.workspace.raw), folder / "raw")
    options = ["-d", str(NUMBER), "-c", "2d", "-npfp", threads, "-np", threads]
    command = [str(programs / "nnUNetv2_plan_and_preprocess"), *options, "--verify_dataset_integrity"]
    once(_planned(FOLDER, folder / "preprocess.json", command, _variables(setup)))
    write_splits(splits, folder / "preprocessed" / name)
    planned = planned_batch(folder / "preprocessed" / name / "nnUNetPlans.json")
    return sorted({min(planned, batch) for batch in wanted})


def run(setup: Setup, programs: Path, batch: int, repetition: int = 0) -> Method:
    """Train with a batch size and predict, as far as it is not done.

    Args:
        setup: of the comparison.
        programs: folder of nnU-Net's commands.
        batch: slices of a step.
        repetition: number of the run. nnU-Net has no seed, so each run differs.

    Raises:
        DvtError: if a command fails.
    """
    name, number, threads = run_name(batch, repetition), str(NUMBER), str(setup.conditions.threads)
    folder, fold = setup.folder(name), str(setup.fold.index)
    variables = {
        **_variables(setup),
        "nnUNet_results": str(folder.absolute() / "results"),
        "DVT_COMPARE_BATCH": str(batch),
        "DVT_COMPARE_RECORD": str(folder.absolute() / "training.json"),
    }
    timed = [str(programs / "python"), "-P", str(TIMED)]  # -P: its folder holds modules of dvtplan's tools
    train = [*timed, "train", number, "2d", fold, "-device", "cpu"]
    # With one core, augmentation and training take turns in one process.
    alone = {"nnUNet_n_proc_DA": "0"} if setup.conditions.threads == 1 else {}
    trained = once(_planned(name, folder / "train.json", train, {**variables, **alone}))
    predicting = folder / "predict.json"
    if not predicting.exists():
        shutil.rmtree(setup.predictions(name), ignore_errors=True)
    places = ["-i", str(setup.test_images.absolute()), "-o", str(setup.predictions(name).absolute())]
    model = ["-d", number, "-c", "2d", "-f", fold, "-chk", "checkpoint_final.pth", "-npp", threads, "-nps", threads]
    quiet = ["-device", "cpu", "--disable_progress_bar"]
    predicted = once(_planned(name, predicting, [*timed, "predict", *places, *model, *quiet], variables))
    return _method(setup, name, folder / "training.json", (trained, predicted))


def _planned(title: str, record: Path, command: Sequence[str], variables: dict[str, str]) -> Planned:
    return Planned(title=title, record=record, command=command, variables=variables)


def method_name(batch: int) -> str:
    """Return the name of nnU-Net with a batch size."""
    return f"{NAME}, batch {batch}"


def run_name(batch: int, repetition: int) -> str:
    """Return the name of a run of nnU-Net with a batch size, which is also that of its folder."""
    return f"{FOLDER}_batch_{batch}/run_{repetition}"


def require_suitable(dataset: Dataset) -> None:
    """Refuse a data set that nnU-Net cannot read, before anything is trained.

    Raises:
        DvtError: for label values with gaps, or a file format that nnU-Net does not read.
    """
    values = sorted(dataset.labels.values())
    description = dataset.folder / dataset_json.FILE_NAME
    if values != list(range(1, len(values) + 1)):
        raise DvtError(
            f"{description}: the labels have the values {show(values)}; nnU-Net requires 1, 2, ... without gaps. "
            "Renumber the labels in the file and in the masks."
        )
    ending = ending_of(dataset)
    if ending not in ENDINGS:
        raise DvtError(f"{description}: nnU-Net does not read {ending} files. Convert them to {ENDINGS[0]}.")


def write_raw(dataset: Dataset, raw: Path) -> str:
    """Write a data set in nnU-Net's layout, with links to its files; return nnU-Net's name of it.

    Links that exist are kept. dataset.json is written last.
    """
    name = f"Dataset{NUMBER:03d}_{dataset.name}"
    ending = ending_of(dataset)
    for case in dataset.cases:
        for channel, image in enumerate(case.images):
            link(image, raw / name / "imagesTr" / f"{case.id}_{channel:04d}{ending}")
        if case.label is not None:
            link(case.label, raw / name / "labelsTr" / f"{case.id}{ending}")
    body = {
        "channel_names": {str(number): channel for number, channel in enumerate(dataset.channels)},
        "labels": {"background": 0, **dataset.labels},
        "numTraining": len(dataset.cases),
        "file_ending": ending,
    }
    write_text(raw / name / "dataset.json", json.dumps(body, indent=1))
    return name


def write_splits(splits: Splits, preprocessed: Path) -> None:
    """Write our folds as nnU-Net's; its validation cases are our test cases."""
    folds = [{"train": list(fold.train), "val": list(fold.test)} for fold in splits.folds]
    write_text(preprocessed / "splits_final.json", json.dumps(folds, indent=1))


def planned_batch(plans: Path) -> int:
    """Return the batch size of nnU-Net's 2-D plan."""
    try:
        return int(json.loads(plans.read_text(encoding="utf-8"))["configurations"]["2d"]["batch_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(f"{plans}: is not a plan of nnU-Net ({error!r}). Use a new folder as --out.") from error


def _variables(setup: Setup) -> dict[str, str]:
    """Return the environment variables of nnU-Net's commands, with its default number of processes for augmentation."""
    folder, threads = setup.folder(FOLDER).absolute(), setup.conditions.threads
    return {
        **{f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")},
        **setup.thread_variables,
        "nnUNet_n_proc_DA": str(min(threads, MOST_WORKERS)),
        "nnUNet_def_n_proc": str(threads),
        "DVT_COMPARE_SECONDS": f"{setup.conditions.budget_s:g}",
        "DVT_COMPARE_THREADS": str(threads),
    }


def _method(setup: Setup, name: str, record: Path, stages: tuple[Stage, Stage]) -> Method:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return Method(
            name=name,
            training_s=float(found["training_s"]),
            steps=int(found["steps"]),
            batch_size=int(found["batch_size"]),
            parameters=int(found["parameters"]),
            precision="fp32",
            peak_bytes=max(stage.peak_bytes for stage in stages),
            prediction_s=stages[1].seconds,
            cases=len(setup.fold.test),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(
            f"{record}: is not a record of a training ({error!r}). Remove train.json next to it, then run {MADE_BY} "
            "again."
        ) from error
