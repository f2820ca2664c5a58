"""Read a damaged scan and judge the outcome."""

from __future__ import annotations

import contextlib
import io
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.dicom.dataset_import import import_dicom
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.dicom.series import choose_volume, read_study, read_volume
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, reorientation_between, same_grid
from fuzzing.damage import damage
from fuzzing.sound_inputs import KINDS, truth

RIGHT, REFUSED, CHANGED, REPORTED = "right", "refused", "changed", "shorter, reported"
SHORT, CRASH, UNCLEAR = "SHORTER WITHOUT A WORD", "TRACEBACK", "UNCLEAR MESSAGE"
FAILURES = (SHORT, CRASH, UNCLEAR)
"""Verdicts that are faults of the program."""

Reader = Callable[[Path], tuple[np.ndarray, Grid]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one damaged scan."""

    kind: str
    seed: int
    """``tools/fuzz_readers.py --kinds KIND --first SEED --count 1`` repeats it."""
    damage: str
    verdict: str
    message: str
    """The error or the warnings, or the traceback."""

    @property
    def line(self) -> str:
        """Return the outcome in one line."""
        return f"{self.kind} {self.seed}: {self.damage}: {self.verdict}: {self.message}"


def read_scan(path: Path) -> tuple[np.ndarray, Grid]:
    """Read the only volume of a DICOM folder or archive, or a volume file."""
    if path.is_file() and path.suffix != ".zip":
        return volume_io.read(path)
    study = read_study(path)
    return read_volume(study, choose_volume(study, None))


def read_mask(path: Path) -> tuple[np.ndarray, Grid]:
    """Import a DICOM folder with a segmentation object, and read the mask that was written.

    Raises:
        DvtError: if the import refuses the folder, or warns that it does not use the object.
    """
    with tempfile.TemporaryDirectory() as name:
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            result = import_dicom([path], Path(name) / "data", ImportOptions(channels=["MR"]))
        if result.faults:
            raise DvtError(result.faults[0])
        if result.without_mask and "warning" in printed.getvalue():
            raise DvtError(printed.getvalue())
        masks = sorted((result.folder / "labelsTr").glob("*.nii.gz"))
        array, grid = volume_io.read(masks[0] if masks else next(result.folder.glob("imagesTs/*.nii.gz")))
        turn = reorientation_between(grid, read_scan(path)[1])
    if not masks or turn is None:
        return array[:0], grid
    return turn.apply(array), turn.grid(grid)


def reader_of(kind: str) -> Reader:
    """Return the reader of a kind of scan."""
    return read_mask if kind == "dicom_segmentation" else read_scan


def try_damaged(kind: str, seed: int, read: Reader | None = None) -> Outcome:
    """Write a sound scan, damage it, read it, and judge the outcome.

    Args:
        kind: a key of ``KINDS``.
        seed: decides the damage.
        read: the reader under test; None for that of the kind.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scan"
        folder.mkdir()
        paths = KINDS[kind](folder)
        is_folder = kind.startswith("dicom") and not kind.endswith("zip")
        source = folder if is_folder else paths[0]
        _, grid = read_scan(source)
        done = damage(kind, paths, np.random.default_rng([seed, *kind.encode()]))
        names = {path.name for path in (source, *paths)}
        verdict, message = _judge(source, names, (truth(kind), grid), read or reader_of(kind))
        if verdict == SHORT and kind.startswith("dicom") and read is None:
            verdict, message = _reported(source, Path(name))
    return Outcome(kind=kind, seed=seed, damage=done, verdict=verdict, message=message)


def _judge(source: Path, names: set[str], sound: tuple[np.ndarray, Grid], read: Reader) -> tuple[str, str]:
    """Return the verdict and its message; an error must name the source or one of its files."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            array, grid = read(source)
    except DvtError as error:
        message = str(error)
        clear = any(name in message for name in names) and len(message) < 3000 and "Traceback" not in message
        return (REFUSED if clear else UNCLEAR), message
    except Exception:
        return CRASH, traceback.format_exc()
    warnings = " ".join(printed.getvalue().split())
    if array.size < sound[0].size or len(array) < len(sound[0]):
        return (REPORTED if "warning" in warnings else SHORT), warnings
    same = np.array_equal(array, sound[0]) and same_grid(grid, sound[1])
    return (RIGHT if same else CHANGED), warnings


def _reported(source: Path, folder: Path) -> tuple[str, str]:
    """Return whether an import reports that a DICOM volume is shorter than its series."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        result = import_dicom([source], folder / "imported", ImportOptions(channels=["MR"]))
    told = " ".join([*result.faults, printed.getvalue()])
    return (REPORTED if "warning" in told or result.faults else SHORT), told


def summarize(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the number of each verdict for each kind, and every failure in full."""
    outcomes = list(outcomes)
    lines = []
    for kind in dict.fromkeys(one.kind for one in outcomes):
        counts = Counter(one.verdict for one in outcomes if one.kind == kind)
        lines.append(f"{kind}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()))
    failures = [one for one in outcomes if one.verdict in FAILURES]
    lines += [one.line for one in failures]
    return [*lines, f"{len(outcomes)} damaged scans, {len(failures)} failures"]
