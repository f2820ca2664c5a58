"""Every path and file name of a project folder, from one root."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core.errors import DvtError

RAW = "datasets_raw"
METRICS = "metrics.csv"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one data set under one root."""

    root: Path
    dataset: str

    @property
    def raw(self) -> Path:
        """nnU-Net's raw layout; never written."""
        return self.root / RAW / self.dataset

    @property
    def preprocessed(self) -> Path:
        """Fingerprint, plan, splits and prepared slices."""
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
    def own_splits(self) -> Path:
        """Where a user puts splits of their own."""
        return self.raw / "splits.json"

    def preprocessed_case(self, case_id: str) -> Path:
        """The slices of one case."""
        return self.preprocessed / case_id

    @property
    def all_results(self) -> Path:
        """Everything of this data set that its networks left."""
        return self.root / "results" / self.dataset

    def results(self, network: str) -> Path:
        """Everything that one network left for this data set; what ``--model`` takes."""
        return self.all_results / network

    def results_plan(self, network: str) -> Path:
        """The plan that the folds in ``results`` were trained by; it travels with them."""
        return model_plan(self.results(network))

    def results_fingerprint(self, network: str) -> Path:
        """What the data of these folds look like, beside their plan."""
        return model_fingerprint(self.results(network))

    def results_description(self, network: str) -> Path:
        """What the data set says of itself, beside the plan."""
        return model_description(self.results(network))

    def metrics(self, network: str) -> Path:
        """Counts and scores of every case; the tables lie beside it."""
        return self.results(network) / METRICS

    def table(self, network: str) -> Path:
        """Table 1 in full precision, with the meaning of its rule."""
        return self.results(network) / "table1.csv"

    @property
    def comparison(self) -> Path:
        """Table 2: several networks on the same patients."""
        return self.all_results / "comparison"

    @property
    def report(self) -> Path:
        """One page on all networks, with everything that it shows inside."""
        return self.all_results / "report.html"

    @property
    def report_figures(self) -> Path:
        """The figures of the report, each as PNG and PDF."""
        return self.all_results / "report"

    @property
    def trained_networks(self) -> list[str]:
        """Names of the results folders that hold a fold, in order."""
        folder = self.all_results
        return sorted(p.name for p in folder.iterdir() if trained_folds(p)) if folder.is_dir() else []

    def command(self, *words: str | int, network: str | None = None) -> str:
        """A command for this data set, as it is to be typed."""
        told = [*map(str, words), "--dataset", self.dataset]
        told += [] if network is None else ["--network", network]
        return shlex.join(told if self.root == Path() else [*told, "--root", str(self.root)])

    def fold(self, network: str, index: int) -> FoldFolder:
        """One trained fold."""
        return FoldFolder(self.results(network) / f"fold_{index}")


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
    def ledger(self) -> Path:
        """What vouches for the predictions."""
        return predictions_ledger(self.predictions)


def open_workspace(root: Path, dataset: str | None) -> Workspace:
    """The workspace of a named data set, or of the only one in ``datasets_raw``.

    Raises:
        DvtError: if there is none, several without a name, or not the named one.
    """
    raw = root / RAW
    try:
        found = (
            sorted(p.name for p in raw.iterdir() if p.is_dir() and not p.name.startswith(".")) if raw.is_dir() else []
        )
    except OSError as error:
        raise DvtError(f"{raw}: cannot be read ({error.strerror or error}). Mend the permissions.") from error
    if dataset is not None:
        if dataset not in found:
            there = ", ".join(found) or "none"
            raise DvtError(f"{raw / dataset}: no such data set; {raw} holds: {there}. Check --root and --dataset.")
        return Workspace(root, dataset)
    if not found:
        raise DvtError(
            f"{raw.absolute()}: no data set found. Put one there as {RAW}/README.md says, or name its --root."
        )
    if len(found) > 1:
        raise DvtError(f"{raw}: holds {len(found)} data sets ({', '.join(found)}). Name one with --dataset.")
    return Workspace(root, found[0])


def model_plan(results: Path) -> Path:
    """The plan in a results folder."""
    return results / "plan.json"


def model_fingerprint(results: Path) -> Path:
    """The fingerprint of the data set that a results folder was trained on; folders of before have none."""
    return results / "fingerprint.json"


def model_description(results: Path) -> Path:
    """The ``dataset.json`` of the data set that a results folder was trained on; folders of before have none."""
    return results / "dataset.json"


def predictions_ledger(folder: Path, part: tuple[int, int] | None = None) -> Path:
    """The list of what a folder of predictions was made from, or of what one of several processes made."""
    return folder / ("predictions.json" if part is None else f"predictions_{part[0]}_of_{part[1]}.json")


def predictions_ledgers(folder: Path) -> list[Path]:
    """All of these that are there."""
    return sorted(
        p for p in folder.glob("predictions*.json") if re.fullmatch(r"predictions(_\d+_of_\d+)?\.json", p.name)
    )


def prediction_record(out: Path, part: tuple[int, int] | None = None) -> Path:
    """Where a folder of predictions tells how it was made, or one of several processes what it made."""
    return out / ("run.json" if part is None else f"run_{part[0]}_of_{part[1]}.json")


def prediction_records(folder: Path) -> list[Path]:
    """All of these that are there."""
    return sorted(p for p in folder.glob("run*.json") if re.fullmatch(r"run(_\d+_of_\d+)?\.json", p.name))


def trained_folds(results: Path) -> list[int]:
    """Indices of the folds that have a folder in a results folder, in order."""
    names = [p.name.removeprefix("fold_") for p in results.glob("fold_*") if p.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())
