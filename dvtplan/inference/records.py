"""Fill the records of a prediction (``run.json``) from its model, cases and timings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dvtplan.core import text
from dvtplan.core.digests import sha256, volume_digest
from dvtplan.data.dataset import Case
from dvtplan.data.prediction_records import CasePrediction, PredictionRecord, PredictionSession, software_versions
from dvtplan.imaging import volume_io
from dvtplan.inference import inputs
from dvtplan.inference.model import Model
from dvtplan.inference.predict_case import Timings


def image_digests(case: Case) -> list[str]:
    """Return the SHA-256 of each image; an empty list if a file is missing, which reading it reports."""
    if not all(path.is_file() for path in case.images):
        return []
    return [volume_digest(volume_io.files_of(path)) for path in case.images]


def opening_record(model: Model, options: Mapping[str, str]) -> PredictionRecord:
    """Return a record of one session that starts now, without cases."""
    session = PredictionSession(
        started=text.now(),
        device=model.setup.device,
        precision=model.setup.precision,
        setup=model.setup.description_with_trial,
        options=dict(options),
        versions=software_versions(),
    )
    return PredictionRecord(
        model="" if model.path is None else str(model.path.absolute()),
        model_digest=model.digest,
        network=model.network,
        folds=model.folds,
        classes=model.classes,
        starts=(session,),
        cases={},
    )


def case_record(
    case: Case, digests: Sequence[str], mask: Path, draft: Path, timings: Timings, names: Mapping[Path, str]
) -> CasePrediction:
    """Return the record of one case.

    Args:
        case: the case.
        digests: ``image_digests`` of the case.
        mask: where the mask will be.
        draft: where it is now, complete.
        timings: of the case.
        names: display names of temporary files.
    """
    return CasePrediction(
        images=dict(zip(inputs.image_names(case, names), digests, strict=True)),
        mask=mask.name,
        mask_digest=sha256(draft),
        slices=timings.slices,
        reading_s=round(timings.reading_s, 3),
        network_s=round(timings.network_s, 3),
        writing_s=round(timings.writing_s, 3),
        finished=text.now(),
        start=0,
    )
