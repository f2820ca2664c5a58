"""Export: the same bytes each time, no patient's name in them, and nothing half-written."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import processes
from helpers.refusals import refused

from dvtplan.core import json_records
from dvtplan.data.dataset import PHANTOM_WARNING
from dvtplan.data.paths import Workspace
from dvtplan.evaluation import evaluate
from dvtplan.inference.model import load_model
from dvtplan.models import checkpoint, devices, model_store, weight_files
from dvtplan.models.description import describe_archive, to_text
from dvtplan.models.training_run import Run
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan
from dvtplan.planning.training_ranges import TrainingData
from dvtplan.reporting import model_export
from dvtplan.reporting.model_export import export_model


def text_of(path: Path, name: str) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode()


def names_of(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if "weights" not in name}


@pytest.fixture
def results(trained: Workspace) -> Path:
    """A scored results folder to write to."""
    evaluate.evaluate(trained, "gn_unet")
    return trained.results("gn_unet")


def test_the_same_folds_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    """Under another name, from a copy, at another time."""
    one = export_model(results, tmp_path / "a.zip")
    shutil.copytree(results.parents[2], tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "results" / "Toy" / "gn_unet" / "plan.json", (0, 0))
    two = export_model(tmp_path / "elsewhere" / "results" / "Toy" / "gn_unet", tmp_path / "deep" / "b.zip")
    assert one.path.read_bytes() == two.path.read_bytes() and one.digest == two.digest
    assert one.omitted == () and one.folds == (0, 1)
    assert names_of(one.path) == {
        "plan.json", "fingerprint.json", "table1.csv", "table1.txt", "NOTICE.txt", "manifest.json",
        "fold_0/run.json", "fold_1/run.json",
    }  # fmt: skip


def test_float16_weights_take_half_the_bytes_and_the_same_bytes_each_time(results: Path, tmp_path: Path) -> None:
    """Table 1 says what it was measured with; without the option the archive is as it was."""
    one, two = (export_model(results, tmp_path / f"{n}.zip", weights="float16") for n in "ab")
    assert one.path.read_bytes() == two.path.read_bytes() and one.digest == two.digest and one.omitted == ()
    whole = export_model(results, tmp_path / "c.zip")
    assert export_model(results, tmp_path / "d.zip", weights="float32").path.read_bytes() == whole.path.read_bytes()
    assert numbers_of(one.path) * 2 == numbers_of(whole.path) and one.digest != whole.digest
    for path, holds in ((one.path, True), (whole.path, False)):
        assert (model_export.ROUNDED_NOTE in " ".join(text_of(path, "table1.txt").split())) is holds
    with pytest.raises(ValueError, match="float32 or float16, not 'int8'"):
        export_model(results, tmp_path / "e.zip", weights="int8")


def test_float16_weights_are_rounded_once_and_described_with_the_digest_of_their_use(
    results: Path, tmp_path: Path
) -> None:
    """Export, info without torch and prediction agree, and the folder has another digest."""
    done = export_model(results, tmp_path / "a.zip", weights="float16")
    there, here = (load_model(path, setup=devices.choose("cpu")) for path in (results, done.path))
    folds = []
    for k, exact, rounded in zip((0, 1), there.networks, here.networks, strict=True):
        weights = {name: weight.half().float() for name, weight in exact.state_dict().items()}
        assert all(torch.equal(weight, weights[name]) for name, weight in rounded.state_dict().items())
        assert {weight.dtype for weight in rounded.state_dict().values()} == {torch.float32}
        digest = weight_files.weights_digest({name: weight.numpy() for name, weight in weights.items()})
        folds.append((json_records.load(Run, results / f"fold_{k}" / "run.json", ""), digest))
    described = describe_archive(done.path)
    assert done.digest == described.digest == here.digest == model_store.model_digest(there.plan, folds) != there.digest
    assert described.weights == "float16" and model_export.describe_folder(results).weights == "float32"


def numbers_of(path: Path) -> int:
    """Bytes of all weights in an archive, without their headers."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if "weights" in name]
        return sum(np.load(io.BytesIO(archive.read(name)), allow_pickle=False).nbytes for name in names)


def test_counters_of_batches_are_not_rounded_next_to_float16_weights(results: Path, tmp_path: Path) -> None:
    """A fold of a network with BatchNorm, whose counter has no float16."""
    file, path = results / "fold_0" / "run.json", results / "fold_0" / "checkpoint.pt"
    file.write_text(file.read_text().replace('"network": "gn_unet"', '"network": "segnet"'))
    run = json_records.load(Run, file, "")
    json_records.save(replace(run, parameters=checkpoint.count_parameters(run)), file)
    network = checkpoint.build_network(run)
    for name, weight in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weight += 2049  # the first number that float16 lacks
    checkpoint.save(path, network, torch.optim.SGD(network.parameters()), 8)
    done = export_model(results, tmp_path / "a.zip", folds=[0], weights="float16")
    model = load_model(done.path, setup=devices.choose("cpu"))
    assert done.digest == describe_archive(done.path).digest == model.digest
    counters = [w for n, w in model.networks[0].state_dict().items() if n.endswith("num_batches_tracked")]
    assert counters and all(w.dtype == torch.int64 and int(w) == 2049 for w in counters)


def test_the_command_writes_float16_and_describes_it(results: Path, tmp_path: Path) -> None:
    done = processes.command("model", "export", results, tmp_path / "a.zip", "--weights", "float16")
    assert done.returncode == 0
    digest = done.stdout.rpartition(" ")[2].strip(")\n")
    lines = processes.command("model", "info", tmp_path / "a.zip").stdout.splitlines()
    assert "weights     float16" in lines and f"digest      {digest}" in lines
    assert processes.command("model", "export", results, tmp_path / "b.zip", "--weights", "int8").returncode == 2


def test_no_patient_case_or_file_is_named(trained: Workspace, tmp_path: Path) -> None:
    """Cases and patients get names that cannot occur by chance; the test searches for them in every byte."""
    word = "SURNAME"
    for path in [p for p in trained.root.rglob("*.json") if "datasets_raw" not in p.parts]:
        path.write_text(renamed(path.read_text(), word))
    for k in (0, 1):
        run = json_records.load(Run, trained.fold("gn_unet", k).run, "")
        assert all(word in case for case in (*run.train, *run.test))
    refresh_digests(trained)
    results = trained.results("gn_unet")
    export_model(results, tmp_path / "a.zip")
    assert word.encode() not in (tmp_path / "a.zip").read_bytes()
    assert "fingerprint.json" in names_of(tmp_path / "a.zip")
    fingerprint = json.loads(trained.fingerprint.read_text())
    for case in fingerprint["cases"]:
        assert case["source_digest"].encode() not in (tmp_path / "a.zip").read_bytes()
    run = json_records.parse(Run, text_of(tmp_path / "a.zip", "fold_0/run.json"))
    assert run.train == (model_store.WITHHELD,) * 2 and run.test == (model_store.WITHHELD,) * 2


def renamed(text: str, word: str) -> str:
    for k in range(4):
        text = text.replace(f'"c{k}"', f'"{word}_{k}"')
    return text


def refresh_digests(workspace: Workspace) -> None:
    """The plan's of the fingerprint, and the runs' of the plan, after their files were changed."""
    fingerprint = json_records.load(Fingerprint, workspace.fingerprint, "")
    file = workspace.results_plan("gn_unet")
    plan = replace(json_records.load(Plan, file, ""), fingerprint_digest=json_records.digest(fingerprint))
    json_records.save(plan, file)
    for k in (0, 1):
        path = workspace.fold("gn_unet", k).run
        json_records.save(replace(json_records.load(Run, path, ""), plan_digest=json_records.digest(plan)), path)


def test_table_1_is_of_the_exported_folds(results: Path, tmp_path: Path) -> None:
    export_model(results, tmp_path / "all.zip")
    export_model(results, tmp_path / "one.zip", folds=[1])
    both, one = (
        list(csv.DictReader(io.StringIO(text_of(tmp_path / f"{n}.zip", "table1.csv")))) for n in ("all", "one")
    )
    whole = list(csv.DictReader((results / "table1.csv").open(newline="")))
    dsc = [row["mean"] for row in whole if row["score"] == "dsc"]
    assert [row["mean"] for row in both if row["score"] == "dsc"] == dsc
    assert {row["n"] for row in both} == {"4"} and {row["n"] for row in one} == {"2"}
    rows = list(csv.DictReader((results / "metrics.csv").open(newline="")))
    mean = sum(float(r["dsc"]) for r in rows if r["fold"] == "1" and r["region"] == "all") / 2
    assert mean == pytest.approx(float(next(r["mean"] for r in one if r["region"] == "all" and r["score"] == "dsc")))
    assert "Scored: fold 1, each on patients" in text_of(tmp_path / "one.zip", "table1.txt")
    data = json_records.parse(TrainingData, text_of(tmp_path / "one.zip", "fingerprint.json"))
    assert data.cases == 2 and data.phantom is False


@pytest.mark.parametrize("changed", ["checkpoint", "prediction", "truth", "levels"])
def test_scores_of_files_that_have_changed_are_omitted(
    results: Path, trained: Workspace, tmp_path: Path, changed: str
) -> None:
    """Whatever the times of the files; folds that are not affected keep their scores."""
    run = json_records.load(Run, results / "fold_1" / "run.json", "")
    path = {
        "checkpoint": results / "fold_1" / "checkpoint.pt",
        "prediction": results / "fold_1" / "predictions" / f"{run.test[0]}.nii.gz",
        "truth": trained.raw / "labelsTr" / f"{run.test[0]}.nii.gz",
        "levels": trained.raw / "cases.csv",
    }[changed]
    if changed == "checkpoint":
        state = torch.load(path, weights_only=True)
        state["network"]["head.bias"] += 0.5
        torch.save(state, path)
    elif changed == "levels":
        path.write_text("case_id\nc0\n")
    else:
        shutil.copyfile(trained.raw / "labelsTr" / f"{run.train[0]}.nii.gz", path)
    os.utime(path, (0, 0))
    (why,) = export_model(results, tmp_path / "a.zip").omitted
    assert why.startswith(f"no Table 1: {path}: has changed") and "`evaluate`" in why
    assert not {"table1.csv", "table1.txt"} & names_of(tmp_path / "a.zip")
    omitted = export_model(results, tmp_path / "b.zip", folds=[0]).omitted
    assert bool(omitted) is (changed == "levels")


def test_scores_of_a_copied_folder_are_exported_whatever_the_times_of_its_files(results: Path, tmp_path: Path) -> None:
    """Also without the data set and the predictions."""
    shutil.copytree(results, tmp_path / "alone" / "gn_unet")
    for k in (0, 1):
        shutil.rmtree(tmp_path / "alone" / "gn_unet" / f"fold_{k}" / "predictions")
    for path in (tmp_path / "alone").rglob("*"):
        os.utime(path, (0, 0) if path.name == "metrics.csv" else None)
    assert export_model(tmp_path / "alone" / "gn_unet", tmp_path / "a.zip").omitted == ()
    assert "table1.csv" in names_of(tmp_path / "a.zip")


def test_scores_of_an_older_version_are_omitted(results: Path, tmp_path: Path) -> None:
    (results / "scores.json").unlink()
    (why,) = export_model(results, tmp_path / "a.zip").omitted
    assert "scores.json: not found" in why and "Run `evaluate` with `network=gn_unet`" in why


def test_scores_that_lack_a_case_or_are_missing_are_omitted(results: Path, trained: Workspace, tmp_path: Path) -> None:
    evaluate.evaluate(trained, "gn_unet", folds=[0])
    why = export_model(results, tmp_path / "d.zip").omitted[0]
    assert "does not hold the test cases of fold 1" in why and "`folds=[0, 1]`" in why
    metrics = results / "metrics.csv"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if ",c0," not in line))
    assert "metrics.csv: has changed" in export_model(results, tmp_path / "a.zip").omitted[0]
    metrics.write_text("no table\n")
    assert "metrics.csv: " in export_model(results, tmp_path / "b.zip").omitted[0]
    metrics.unlink()
    assert "metrics.csv: not found" in export_model(results, tmp_path / "c.zip").omitted[0]


def test_a_folder_without_its_data_is_exported_without_ranges(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "alone" / "gn_unet")
    (tmp_path / "alone" / "gn_unet" / "fingerprint.json").unlink()  # as in folders from before it was kept there
    (why,) = export_model(tmp_path / "alone" / "gn_unet", tmp_path / "a.zip").omitted
    assert why.startswith("no ranges of the training data: ") and "not found" in why
    described = describe_archive(tmp_path / "a.zip")
    assert described.data is None and "trained on  unknown" in to_text(described)


def test_a_fingerprint_of_other_data_is_omitted(results: Path, trained: Workspace, tmp_path: Path) -> None:
    trained.fingerprint.write_text(trained.fingerprint.read_text().replace('"Toy"', '"Boy"'))
    assert export_model(results, tmp_path / "b.zip").omitted == ()  # its own is next to the plan
    (results / "fingerprint.json").unlink()
    (why,) = export_model(results, tmp_path / "a.zip").omitted
    assert "is not the fingerprint that the plan was derived from" in why


def test_phantoms_are_marked(results: Path, trained: Workspace, tmp_path: Path) -> None:
    description = trained.raw / "dataset.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"description": "Synthetic legs."}))
    export_model(results, tmp_path / "a.zip")
    for name in ("NOTICE.txt", "table1.txt"):
        words = " ".join(text_of(tmp_path / "a.zip", name).split())
        assert PHANTOM_WARNING in words and "(phantom)" in words
    assert json_records.parse(TrainingData, text_of(tmp_path / "a.zip", "fingerprint.json")).phantom is True
    assert "4 patients, phantoms" in to_text(describe_archive(tmp_path / "a.zip"))


def test_phantoms_are_marked_without_their_data_too(results: Path, tmp_path: Path) -> None:
    """The description of the data set is next to the plan."""
    alone = tmp_path / "alone" / "gn_unet"
    shutil.copytree(results, alone)
    described = alone / "dataset.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"description": "Synthetic legs."}))
    export_model(alone, tmp_path / "a.zip")
    for name in ("NOTICE.txt", "table1.txt"):
        words = " ".join(text_of(tmp_path / "a.zip", name).split())
        assert PHANTOM_WARNING in words and "(phantom)" in words


def test_the_notice_holds_the_terms_of_who_trained_it(results: Path, tmp_path: Path) -> None:
    export_model(results, tmp_path / "a.zip")
    assert "not a medical device" in text_of(tmp_path / "a.zip", "NOTICE.txt")
    assert "ask them" in text_of(tmp_path / "a.zip", "NOTICE.txt")
    (tmp_path / "terms.txt").write_text("CC BY 4.0, A. Author\n")
    export_model(results, tmp_path / "b.zip", licence=tmp_path / "terms.txt")
    assert text_of(tmp_path / "b.zip", "NOTICE.txt").endswith("terms below.\n\ndvt_model info describes this file. "
        "dvt_predict --model uses it as it is.\n\nCC BY 4.0, A. Author\n")  # fmt: skip
    assert "none.txt: is not a readable text" in refused(
        lambda: export_model(results, tmp_path / "c.zip", licence=tmp_path / "none.txt")
    )


def test_a_training_that_is_not_done_says_so(results: Path, tmp_path: Path) -> None:
    file = results / "fold_0" / "run.json"
    file.write_text(file.read_text().replace('"epochs": 8', '"epochs": 9'))
    omitted = export_model(results, tmp_path / "a.zip").omitted
    assert omitted == ("fold 0 is exported after 8 of 9 epochs",)
    assert "0: 8 of 9 epochs" in to_text(describe_archive(tmp_path / "a.zip"))


# --- refusals -------------------------------------------------------------------------------------


def test_what_does_not_belong_together_is_refused_and_nothing_written(results: Path, tmp_path: Path) -> None:
    run = results / "fold_1" / "run.json"
    text = run.read_text()
    target = tmp_path / "out" / "a.zip"
    run.write_text(text.replace('"plan_digest": "', '"plan_digest": "0'))
    assert "was trained by another plan" in refused(lambda: export_model(results, target))
    run.write_text(text.replace('"width": 4', '"width": 8'))
    message = refused(lambda: export_model(results, target))
    assert "fold_1/checkpoint.pt: " in message and "does not fit the gn_unet of" in message
    run.write_text(text)
    path = results / "fold_1" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["network"]["head.bias"][:] = torch.inf
    torch.save(state, path)
    state["epochs_done"] = 9
    torch.save(state, path)
    assert "contains 9 epochs, but run.json lists 8" in refused(lambda: export_model(results, target))
    state["epochs_done"] = 8
    torch.save(state, path)
    assert "head.bias has weights that are not finite" in refused(lambda: export_model(results, target))
    assert "the folds 0, 1, not 7" in refused(lambda: export_model(results, target, folds=[7]))
    assert processes.tree(tmp_path / "out") == {}


@pytest.mark.parametrize("value", [65504.0, -65504.0, 65505.0, -65520.0, 1e38])
def test_weights_that_overflow_float16_are_refused_and_nothing_written(
    results: Path, tmp_path: Path, value: float
) -> None:
    path, target = results / "fold_1" / "checkpoint.pt", tmp_path / "out" / "a.zip"
    state = torch.load(path, weights_only=True)
    state["network"]["head.weight"][0, 2] = value
    torch.save(state, path)
    if abs(value) <= 65504:
        export_model(results, target, weights="float16")
        model = load_model(target, folds=[1], setup=devices.choose("cpu"))
        assert float(model.networks[0].state_dict()["head.weight"][0, 2]) == value
        return
    message = refused(lambda: export_model(results, target, weights="float16"))
    assert message.startswith(
        f"{path}: head.weight has a weight of magnitude {np.float32(abs(value)):.9g}, above the 65504"
    )
    assert "`weights=float32`" in message
    assert processes.tree(tmp_path / "out") == {}
    export_model(results, target)


def test_targets_that_would_lose_something_are_refused(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    target.write_bytes(b"scans")
    assert "a.zip: exists" in refused(lambda: export_model(results, target)) and target.read_bytes() == b"scans"
    export_model(results, target, overwrite=True)
    assert describe_archive(target).digest
    (tmp_path / "folder.zip").mkdir()
    assert "folder.zip: exists" in refused(lambda: export_model(results, tmp_path / "folder.zip", overwrite=True))
    assert "must end in .zip" in refused(lambda: export_model(results, tmp_path / "a.tar"))
    assert "is not a folder" in refused(lambda: export_model(target, tmp_path / "b.zip"))


def test_a_full_disk_leaves_nothing(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.zip"
    done = processes.command("model", "export", results, target, file_limit=20_000)
    assert done.returncode == 1 and "a.zip: cannot be written" in done.stderr and len(done.stderr.splitlines()) == 1
    assert processes.tree(tmp_path / "out") == {}


@pytest.mark.parametrize("network", ["segnet", "gcn50", "unet", "unet_valid", "unet32"])
def test_every_network_is_checked_without_memory(trained_once: Workspace, network: str) -> None:
    """Names, shapes and dtypes of what has no memory are those of the network itself, counters of batches included."""
    run = json_records.load(Run, trained_once.fold("gn_unet", 0).run, "")
    run = replace(run, network=network)
    arrays = checkpoint.get_weights(checkpoint.build_network(run))
    assert checkpoint.expected_weights(run, "") == {name: (str(a.dtype), a.shape) for name, a in arrays.items()}
    assert {str(a.dtype) for a in arrays.values()} <= set(weight_files.DTYPES)


def test_exporting_does_not_change_the_results(results: Path, tmp_path: Path) -> None:
    before = processes.tree(results)
    export_model(results, tmp_path / "a.zip")
    model_export.describe_folder(results)
    assert processes.tree(results) == before
