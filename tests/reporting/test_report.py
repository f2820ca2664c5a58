"""The report of a data set, from files to one page."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.html_reader import Reader
from helpers.masks import prediction, rewrite
from helpers.processes import command, python

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import COLUMNS, evaluate
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.evaluation.stored_scores import read_metrics
from dvtplan.imaging import volume_io
from dvtplan.rendering import output
from dvtplan.reporting.report import choose_patients, write_report


@pytest.fixture
def scored(trained: Workspace) -> Workspace:
    """Both folds trained, predicted and scored; one label, no levels."""
    evaluate(trained, "gn_unet")
    return trained


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and named, but neither painted nor encoded: what is tested is what is said of them."""

    def touch(_: object, folder: Path, name: str) -> tuple[Path, ...]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = (folder / f"{name}.png", folder / f"{name}.pdf")
        for path in paths:
            path.touch()
        return paths

    monkeypatch.setattr(output, "save_both", touch)
    monkeypatch.setattr(output, "encode", lambda *_: b"")


def add_network(workspace: Workspace, name: str, folds: tuple[int, ...] = (0, 1)) -> None:
    """Another network with the same predictions."""
    shutil.copytree(workspace.results("gn_unet"), workspace.results(name))
    for k in {0, 1} - set(folds):
        shutil.rmtree(workspace.fold(name, k).path)
    evaluate(workspace, name)


def read(workspace: Workspace, **options: object) -> Reader:
    """The report as written, parsed."""
    done = write_report(workspace, **options)  # type: ignore[arg-type]
    return Reader(done.html.read_text(encoding="utf-8"))


def describe(workspace: Workspace, text: str) -> None:
    path = workspace.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "description": text}))


def headings(page: Reader) -> list[str]:
    return [attributes["id"] for attributes in page.all("section")]


def test_a_report_is_one_page_that_carries_every_image(scored: Workspace) -> None:
    done = write_report(scored)
    text = done.html.read_text(encoding="utf-8")
    page = Reader(text)
    assert done.html == scored.root / "results" / "Toy" / "report.html" and not page.open
    assert "://" not in text and not page.all("script") and not page.all("link")
    images = page.all("img")
    assert all(image["src"].startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for image in images)
    assert all(image["alt"] for image in images) and len(page.all("figcaption")) == len(page.all("figure")) == len(
        images
    )
    # Volume, agreement, boxes, learning; and of each case two slices, or one, and a projection.
    kinds = [image["src"][11:15] for image in images]
    assert kinds.count("png;") == 4 and 8 <= kinds.count("jpeg") <= 12
    assert (done.drawn, done.patients) == (4, 4)
    assert headings(page)[:3] == ["overview", "words", "scores"] and headings(page)[-4:] == [
        f"patient-{k}" for k in (1, 2, 3, 4)
    ]


def test_every_figure_is_next_to_it_as_png_and_pdf_and_old_ones_are_removed(scored: Workspace) -> None:
    folder = scored.report_figures
    folder.mkdir(parents=True)
    for name in ("old.png", "old.pdf", "notes.txt"):
        (folder / name).touch()
    done = write_report(scored)
    assert sorted(folder.iterdir()) == sorted([*done.figures, folder / "notes.txt"])
    for name in ("volume_dsc_gn_unet", "bland_altman_gn_unet", "dsc_boxes", "learning_gn_unet", "case_c0_projection"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("unpainted")
def test_the_report_shows_the_numbers_of_metrics(scored: Workspace) -> None:
    rows = pd.read_csv(scored.metrics("gn_unet"))
    page = read(scored)
    mean = rows["dsc"].mean()
    assert f"gn_unet 4 {mean:.2f} ±" in page.text and "all 2 folds" in page.text
    assert "Region rule: none. No regions. Every predicted value above 0 is thrombus." in page.text
    worst = rows.sort_values("dsc").iloc[0]
    assert f"{worst['case_id']} {worst['fold']} {worst['dsc']:.2f}" in page.text
    assert page.text.index(f"Tested by fold {worst['fold']}") > 0
    assert "AP has the fewest voxels" in page.text and "of 8 epochs" in page.text


@pytest.mark.usefixtures("unpainted")
def test_without_regions_only_all_is_reported(scored: Workspace) -> None:
    page = read(scored)
    assert "all (n = 4)" in page.text and "proximal (n" not in page.text and "Dotted" not in page.text


@pytest.mark.usefixtures("unpainted")
def test_levels_give_regions_and_lines(trained: Workspace) -> None:
    table = "case_id,patient_id,level_left_mm,level_right_mm\n" + "".join(f"c{k},c{k},40,44\n" for k in range(4))
    (trained.raw / "cases.csv").write_text(table)
    evaluate(trained, "gn_unet")
    page = read(trained)
    assert "proximal (n" in page.text and "Dotted: the level of each limb." in page.text
    assert "Dotted yellow lines are the levels of cases.csv" in page.text


@pytest.mark.usefixtures("unpainted")
def test_groups_of_patients_are_shown_if_they_were_scored(trained: Workspace) -> None:
    (trained.raw / "cases.csv").write_text("case_id,centre\nc0,North\nc1,North\nc2,South\nc3,South\n")
    evaluate(trained, "gn_unet", options=EvaluationOptions(by="centre"))
    page = read(trained)
    assert "Table 1 by centre. Segmentation performance by region and centre: gn_unet on Toy." in page.text
    assert "North: 2, South: 2" in page.text and "p Mann-Whitney 4" in page.text
    assert "North: 1, South: 1" in read(trained, folds=[0]).text  # c0 and c2
    evaluate(trained, "gn_unet")
    assert "by centre" not in read(trained).text


@pytest.mark.usefixtures("unpainted")
def test_names_from_files_are_text(trained: Workspace) -> None:
    evil = '<img src=x onerror=alert(1)>&"'
    lines = "".join(f'c{k},"{evil.replace(chr(34), chr(34) * 2)}{k}"\n' for k in range(4))
    (trained.raw / "cases.csv").write_text("case_id,patient_id\n" + lines)
    describe(trained, f"synthetic {evil}")
    evaluate(trained, "gn_unet")
    page = read(trained)
    assert not page.open and all(image["src"].startswith("data:") for image in page.all("img"))
    assert f"{evil}0" in page.text and f"synthetic {evil}" in page.text


@pytest.mark.usefixtures("unpainted")
def test_phantom_data_are_marked_everywhere(scored: Workspace) -> None:
    assert "not evidence of clinical accuracy" not in read(scored).text
    describe(scored, "synthetic: generator 2")
    page = read(scored)
    assert "Phantom data: images and truth were computed (synthetic: generator 2)" in page.text
    captions = re.split(r"Figure \d\. ", page.text)[1:]
    assert len(captions) == 4 and all("(phantom)" in caption for caption in captions)
    assert "Table 1. Segmentation performance by region: gn_unet on Toy (phantom)." in page.text


@pytest.mark.usefixtures("unpainted")
def test_a_patient_without_truth_is_drawn_and_counted_apart(trained: Workspace) -> None:
    rewrite(trained.raw / "labelsTr" / "c0.nii.gz", np.zeros((6, 34, 33), np.uint8))
    mask = np.zeros((6, 34, 33), np.uint8)
    mask[5, 3:6, 3:6] = 1
    rewrite(prediction(trained, "c0"), mask)
    evaluate(trained, "gn_unet")
    page = read(trained)
    assert "all (n = 3)" in page.text and "all 1, 0.18 mL" in page.text  # 9 voxels of 20 mm3
    assert "c0, only slice with truth or prediction: coronal slice 6 of 6" in page.text
    assert "c0: scores over all slices, and volumes in mL; n/a: no truth in the region." in page.text
    assert page.text.rindex("c0: scores") > page.text.rindex("c1: scores")  # last


@pytest.mark.usefixtures("unpainted")
def test_two_networks_on_the_same_folds_are_compared(scored: Workspace) -> None:
    add_network(scored, "unet")
    page = read(scored)
    assert "Table 2. Comparison of networks: Toy." in page.text and "Zero differences: all DSC unet 4" in page.text
    assert {"volume_dsc_unet.png", "learning_unet.pdf"} <= {p.name for p in scored.report_figures.iterdir()}
    assert "Pictures show the predictions of gn_unet." in page.text
    assert "Pictures show the predictions of unet." in read(scored, networks=["unet", "gn_unet"]).text
    assert "Table 2" not in read(scored, networks=["unet"]).text


@pytest.mark.usefixtures("unpainted")
def test_networks_on_other_folds_are_named_in_a_sentence(scored: Workspace) -> None:
    add_network(scored, "unet", (1,))
    page = read(scored)
    assert "Table 2 omits gn_unet: no other network was scored on all 2 folds." in page.text
    assert "Table 2. Comparison of networks: Toy." in read(scored, folds=[1]).text


@pytest.mark.usefixtures("unpainted")
def test_some_folds_can_be_reported_alone(scored: Workspace) -> None:
    done = write_report(scored, folds=[1])
    assert done.patients == 2 and "fold 1 of 2" in done.html.read_text()


@pytest.mark.usefixtures("unpainted")
def test_a_fold_that_was_predicted_and_not_scored_is_named(trained: Workspace) -> None:
    evaluate(trained, "gn_unet", folds=[0])
    page = read(trained)
    assert "fold 1 has predictions, but was not scored." in page.text and "all (n = 2)" in page.text


@pytest.mark.usefixtures("unpainted")
def test_a_limit_draws_the_worst_and_the_best(scored: Workspace) -> None:
    done = write_report(scored, patients=1)
    rows = pd.read_csv(scored.metrics("gn_unet")).sort_values("dsc")
    assert done.drawn == 2
    drawn = {path.name.split("_")[1] for path in done.figures if path.name.startswith("case_")}
    assert drawn == {rows["case_id"].iloc[0], rows["case_id"].iloc[-1]}
    assert "2 of 4 patients are drawn: the worst and the best" in done.html.read_text()


def test_choice_of_patients() -> None:
    whole = pd.DataFrame(
        {
            "patient_id": ["a", "b", "c", "d", "e", "f"],
            "dsc": [0.5, 0.9, 0.1, 0.7, math.nan, math.nan],
            "counted": [True] * 4 + [False] * 2,
            "false_positive_ml": [0.0, 0.0, 0.0, 0.0, 1.0, 2.0],
        }
    )
    assert choose_patients(whole, None) == ["c", "a", "d", "b", "f", "e"]
    assert choose_patients(whole, 1) == ["c", "b", "f"]
    assert choose_patients(whole, 2) == choose_patients(whole, 9) == ["c", "a", "d", "b", "f", "e"]
    assert choose_patients(whole, 3)[:4] == ["c", "a", "d", "b"]  # no patient twice


@pytest.mark.usefixtures("unpainted")
def test_missing_metrics_are_refused_with_the_command(trained: Workspace) -> None:
    folder = trained.root / "results" / "Toy"
    with pytest.raises(DvtError, match=f"{folder}: no network has been scored.*`evaluate` with `network=gn_unet`"):
        write_report(trained)
    with pytest.raises(DvtError, match=f"{trained.metrics('gn_unet')}: not found.*`evaluate`"):
        write_report(trained, ["gn_unet"])
    assert not trained.report.exists() and not trained.report_figures.exists()


@pytest.mark.usefixtures("unpainted")
def test_an_unknown_network_is_refused(scored: Workspace) -> None:
    with pytest.raises(DvtError, match="there are: gn_unet"):
        write_report(scored, ["segnet"])


@pytest.mark.parametrize("changed", ["prediction", "truth", "levels"])
@pytest.mark.usefixtures("unpainted")
def test_scores_of_files_that_have_changed_are_refused(scored: Workspace, changed: str) -> None:
    """Even if the changed file looks older than the scores."""
    path = {
        "prediction": prediction(scored, "c1"),
        "truth": scored.raw / "labelsTr" / "c2.nii.gz",
        "levels": scored.raw / "cases.csv",
    }[changed]
    if changed == "levels":
        path.write_text("case_id\nc0\n")
    else:
        mask = volume_io.read(path)[0]
        mask[0, 0, :2] = 1 - mask[0, 0, :2]
        rewrite(path, mask)
    os.utime(path, (0, 0))
    with pytest.raises(DvtError, match=f"{path}: has changed.*`evaluate`"):
        write_report(scored)
    evaluate(scored, "gn_unet")
    write_report(scored)


@pytest.mark.usefixtures("unpainted")
def test_a_copied_workspace_is_reported_whatever_the_times_of_its_files(scored: Workspace, tmp_path: Path) -> None:
    copy = Workspace(tmp_path / "copy", scored.dataset)
    shutil.copytree(scored.root, copy.root)
    for path in copy.root.rglob("*"):
        os.utime(path, (0, 0) if path.name == "metrics.csv" else None)
    assert write_report(copy).patients == 4


@pytest.mark.usefixtures("unpainted")
def test_scores_of_an_older_version_are_refused(scored: Workspace) -> None:
    (scored.results("gn_unet") / "scores.json").unlink()
    with pytest.raises(DvtError, match=r"scores\.json: not found.*`evaluate` with"):
        write_report(scored)


@pytest.mark.usefixtures("unpainted")
def test_metrics_that_were_edited_are_refused(scored: Workspace) -> None:
    path = scored.metrics("gn_unet")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ",c2," not in line))
    with pytest.raises(DvtError, match=r"metrics\.csv: has changed.*`evaluate` with"):
        write_report(scored)


@pytest.mark.usefixtures("unpainted")
def test_a_fold_that_was_not_scored_is_refused(trained: Workspace) -> None:
    evaluate(trained, "gn_unet", folds=[0])
    with pytest.raises(DvtError, match=r"metrics\.csv: does not hold the test cases of all 2 folds.*`evaluate`"):
        write_report(trained, folds=[0, 1])


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "fold,case_id,tp,fp,fn\n0,c0,x,0,0\n", "\x00\x01"])
@pytest.mark.usefixtures("unpainted")
def test_damaged_metrics_are_one_line(scored: Workspace, text: str) -> None:
    scored.metrics("gn_unet").write_text(text)
    with pytest.raises(DvtError, match=r"metrics\.csv: .*`evaluate` with") as refused:
        write_report(scored)
    assert "\n" not in str(refused.value)


def test_names_such_as_001_and_na_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    words = {"case_id": "001", "patient_id": "NA", "region": "all", "rule": "none"}
    pd.DataFrame([dict.fromkeys(COLUMNS, 1) | words]).to_csv(path, index=False)
    rows = read_metrics(path)
    assert rows.loc[0, ["case_id", "patient_id"]].tolist() == ["001", "NA"]


@pytest.mark.usefixtures("unpainted")
def test_a_prediction_of_an_earlier_training_is_not_reported(scored: Workspace) -> None:
    scored.fold("gn_unet", 1).prediction_index.unlink()
    with pytest.raises(DvtError, match="no prediction by the present training"):
        write_report(scored)


def test_the_command_prints_what_was_written(scored: Workspace) -> None:
    done = command("report", "--root", scored.root, "--patients", "1", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{scored.report} (") and first.endswith("2 of 4 patients drawn)")
    assert second == f"{len(list(scored.report_figures.iterdir()))} figures, PNG and PDF, in {scored.report_figures}"


def test_the_command_refuses_in_one_line(trained: Workspace) -> None:
    done = command("report", "--root", trained.root)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "Run dvt_evaluate" in done.stderr


def test_help_tells_an_example_and_loads_nothing_heavy() -> None:
    program = "import sys; from dvtplan import cli; sys.argv[1:] = ['--help']\n"
    program += "try: cli.report()\nfinally: print(*sys.modules)"
    done = python(["-c", program])
    assert done.returncode == 0 and "example: dvt_report --dataset" in done.stdout
    assert not {"torch", "matplotlib", "pandas", "SimpleITK"} & set(done.stdout.split())
