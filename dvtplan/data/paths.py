"""Paths and file names of a project folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.core.text import shorten_list
from dvtplan.imaging.volume_names import is_hidden

RAW = "datasets_raw"
METRICS = "metrics.csv"
POSTPROCESSING = "postprocessing.json"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one data set under a root; the root may be given as text."""

    root: Path
    dataset: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @property
    def raw(self) -> Path:
        """The raw data in nnU-Net's layout; never written."""
        return self.root / RAW / self.dataset

    @property
    def preprocessed(self) -> Path:
        """Fingerprint, plan, splits and preprocessed slices."""
        return self.root / "datasets_preprocessed" / self.dataset

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "fingerprint.json"

    @property
    def plan(self) -> Path:
        return self.preprocessed / "plan.json"

    @property
    def splits(self) -> Path:
        return self.preprocessed / "splits.json"

    @property
    def seen_files(self) -> Path:
        """Digests of the raw files, with the sizes and times at which they were read; not a result."""
        return self.preprocessed.with_name(f".{self.dataset}_files.json")

    @property
    def user_splits(self) -> Path:
        """Splits that a user provides."""
        return self.raw / "splits.json"

    def preprocessed_case(self, case_id: str) -> Path:
        """Return the folder of one case's preprocessed slices."""
        return self.preprocessed / case_id

    @property
    def all_results(self) -> Path:
        """The results of all networks."""
        return self.root / "results" / self.dataset

    def results(self, network: str) -> Path:
        """Return the results of one network: a model folder."""
        return self.all_results / network

    def results_plan(self, network: str) -> Path:
        """Return the path of the plan with which the folds in ``results`` were trained."""
        return model_plan(self.results(network))

    def results_fingerprint(self, network: str) -> Path:
        """Return the path of the fingerprint of their training data."""
        return model_fingerprint(self.results(network))

    def results_description(self, network: str) -> Path:
        """Return the path of the ``dataset.json`` of their training data."""
        return model_description(self.results(network))

    def metrics(self, network: str) -> Path:
        """Return the path of the counts and scores of every case."""
        return self.results(network) / METRICS

    def table(self, network: str) -> Path:
        """Return the path of Table 1 in full precision."""
        return self.results(network) / "table1.csv"

    @property
    def comparison(self) -> Path:
        """Folder of Table 2: several networks on the same patients."""
        return self.all_results / "comparison"

    @property
    def report(self) -> Path:
        """The page about all networks, with its figures inside."""
        return self.all_results / "report.html"

    @property
    def report_figures(self) -> Path:
        """The figures of the report, each as PNG and PDF."""
        return self.all_results / "report"

    @property
    def trained_networks(self) -> list[str]:
        """Networks with a trained fold, in alphabetical order."""
        folder = self.all_results
        return sorted(p.name for p in folder.iterdir() if trained_folds(p)) if folder.is_dir() else []

    def fold(self, network: str, index: int) -> FoldFolder:
        """Return the folder of one trained fold."""
        return model_fold(self.results(network), index)


@dataclass(frozen=True, slots=True)
class FoldFolder:
    """The files of one trained fold."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def postprocessing(self) -> Path:
        """The mask rule that was chosen on held-out patients; missing if none was."""
        return self.path / POSTPROCESSING

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.csv"

    @property
    def progress(self) -> Path:
        return self.path / "progress.png"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def prediction_index(self) -> Path:
        """The log of the predictions."""
        return prediction_index(self.predictions)


def open_workspace(root: str | Path, dataset: str | None = None) -> Workspace:
    """Return the workspace of a data set, by default of the only one in ``datasets_raw``.

    Raises:
        DvtError: if the data set does not exist, or if it is not given and there is not exactly one.
    """
    root = Path(root)
    raw = root / RAW
    try:
        found = sorted(p.name for p in raw.iterdir() if p.is_dir() and not is_hidden(p.name)) if raw.is_dir() else []
    except OSError as error:
        raise DvtError(cannot_read(raw, error)) from error
    if dataset is not None:
        if dataset not in found:
            available = shorten_list(found) or "none"
            raise DvtError(
                f"{raw}: contains no data set {dataset!r}; it contains: {available}. Choose another `dataset`."
            )
        return Workspace(root, dataset)
    if not found:
        raise DvtError(f"{raw.absolute()}: no data set found. Add one as {RAW}/README.md explains, or set `root`.")
    if len(found) > 1:
        raise DvtError(f"{raw}: contains {len(found)} data sets ({shorten_list(found)}). Choose one with `dataset`.")
    return Workspace(root, found[0])


def as_workspace(place: Workspace | Path | str) -> Workspace:
    """Return a workspace as it is; for a folder, the workspace of the only data set in its ``datasets_raw``."""
    return place if isinstance(place, Workspace) else open_workspace(place)


def require_own_folder(folder: Path, parameter: str) -> None:
    """Refuse a folder in a data set, or in the results of a training, as a place for other outputs.

    Args:
        folder: of the outputs; it may be missing.
        parameter: that names the folder, for the message.

    Raises:
        DvtError: if masks or tables there would mix with the data set, or with the network's own predictions.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        if (place / "dataset.json").exists() and (place / "imagesTr").is_dir():
            raise DvtError(f"{folder}: belongs to the data set {place}. Choose another `{parameter}`.")
        has_plan = (place / "plan.json").exists()
        if (place / "checkpoint.pt").exists() or (
            has_plan and (trained_folds(place) or (place / "splits.json").exists())
        ):
            raise DvtError(f"{folder}: belongs to a trained network or its data. Choose another `{parameter}`.")


def model_fold(results: Path, index: int) -> FoldFolder:
    """Return one fold of a model folder."""
    return FoldFolder(results / f"fold_{index}")


def model_plan(results: Path) -> Path:
    """Return the path of the plan in a model folder."""
    return results / "plan.json"


def model_fingerprint(results: Path) -> Path:
    """Return the path of the training data's fingerprint in a model folder; older folders lack it."""
    return results / "fingerprint.json"


def model_description(results: Path) -> Path:
    """Return the path of the training data's ``dataset.json`` in a model folder; older folders lack it."""
    return results / "dataset.json"


def prediction_index(folder: Path, part: tuple[int, int] | None = None) -> Path:
    """Return the path of the log of a folder of predictions; ``part`` for one of several processes."""
    return folder / ("predictions.json" if part is None else f"predictions_{part[0]}_of_{part[1]}.json")


def prediction_indexes(folder: Path) -> list[Path]:
    """Return all such files in a folder."""
    return sorted(
        p for p in folder.glob("predictions*.json") if re.fullmatch(r"predictions(_\d+_of_\d+)?\.json", p.name)
    )


def prediction_record(out: Path, part: tuple[int, int] | None = None) -> Path:
    """Return the path of the record of how predictions were made; ``part`` for one of several processes."""
    return out / ("run.json" if part is None else f"run_{part[0]}_of_{part[1]}.json")


def prediction_records(folder: Path) -> list[Path]:
    """Return all such files in a folder."""
    return sorted(p for p in folder.glob("run*.json") if re.fullmatch(r"run(_\d+_of_\d+)?\.json", p.name))


def trained_folds(results: Path) -> list[int]:
    """Return the indices of the folds in a model folder, in order."""
    names = [p.name.removeprefix("fold_") for p in results.glob("fold_*") if p.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())
