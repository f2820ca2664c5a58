"""Models on disk: an archive gives the network of its folder to the bit, and no hostile one gets near a network."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import resource
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_archives import CPU, load, rebuilt
from helpers.refusals import printable_refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core import json_records, verified_archive
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.evaluate import evaluate
from dvtplan.inference.model import Model, load_model
from dvtplan.models import checkpoint, description, model_store, weight_files
from dvtplan.models.postprocessing import MaskRule, Postprocessing
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from dvtplan.reporting import model_export


def logits(model: Model) -> list[torch.Tensor]:
    image = torch.from_numpy(np.random.default_rng(0).random((2, 1, 32, 32), np.float32))
    with torch.inference_mode():
        return [network(image) for network in model.networks]


# --- what travels is what was there ---------------------------------------------------------------


@pytest.mark.parametrize("folds", [None, [0], [1], [1, 0]])
def test_an_archive_gives_the_logits_of_its_folder_to_the_bit(
    trained_once: Workspace, good: Path, folds: list[int] | None
) -> None:
    there, here = load(trained_once.results("gn_unet"), folds=folds), load(good, folds=folds)
    assert all(torch.equal(a, b) for a, b in zip(logits(there), logits(here), strict=True))
    assert (here.digest, here.folds, here.plan, here.classes) == (there.digest, there.folds, there.plan, there.classes)
    assert here.network == there.network == "gn_unet" and (here.path, there.path) == (
        good,
        trained_once.results("gn_unet"),
    )


def test_the_digest_is_of_plan_networks_and_weights(
    trained: Workspace, good: Path, members: dict[str, bytes], tmp_path: Path
) -> None:
    """A pause in training, which changes the optimizer's state alone, leaves it; whatever changes masks does not."""
    results = trained.results("gn_unet")
    before = load(results).digest
    path = trained.fold("gn_unet", 0).checkpoint
    state = torch.load(path, weights_only=True)
    state["rng_cpu"] = state["rng_cpu"].flip(0)
    torch.save(state, path)
    assert load(results).digest == before == load(good).digest
    state["network"]["head.bias"] += 1e-3
    torch.save(state, path)
    assert load(results).digest != before
    run = json.loads(members["fold_0/run.json"])
    run["recipe"]["norm_groups"] = 4  # the same weights, another function of them
    other = members | {"fold_0/run.json": json.dumps(run).encode()}
    assert load(rebuilt(tmp_path / "other.zip", other)).digest not in (before, load(results).digest)


def test_ranges_without_an_axis_are_refused_before_a_scan_is_compared_with_them(
    members: dict[str, bytes], tmp_path: Path
) -> None:
    body = json.loads(members["fingerprint.json"])
    del body["spacing_mm"]["LR"]
    other = members | {"fingerprint.json": json.dumps(body).encode()}
    assert "spacing_mm" in printable_refusal(lambda: load(rebuilt(tmp_path / "a.zip", other)))


@pytest.mark.parametrize("name", ["plan.json", "fold_0/run.json", "fingerprint.json"])
@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_file_of_a_folder_is_to_be_copied_again(trained: Workspace, name: str, content: str) -> None:
    """Whoever received a model cannot train it."""
    file = trained.results("gn_unet") / name
    file.write_text(content)
    message = printable_refusal(lambda: load(trained.results("gn_unet")))
    assert message.startswith(f"{file}: ") and "Copy the model again" in message and "Fix it" not in message


# --- hostile and damaged --------------------------------------------------------------------------


def changed_run(members: dict[str, bytes], k: int = 0, /, recipe: dict[str, Any] | None = None, **fields: Any) -> bytes:
    body = json.loads(members[f"fold_{k}/run.json"])
    body["recipe"] |= recipe or {}
    return json.dumps(body | fields).encode()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": {}}, "classes must map"),
        ({"classes": {"a": 300}}, "classes must map"),
        ({"classes": {"a": 2, "b": 1}}, "classes must map"),
        ({"classes": {"../../home": 1}}, "becomes part of file names"),
        ({"classes": {"a" * 240: 1}}, "becomes part of file names"),
        ({"classes": {"": 1}}, "becomes part of file names"),
        ({"classes": {"a": 1, "b": 2}}, "predicts other classes than fold 0"),
        ({"channels": 2}, "takes 2 channels, the plan names 1"),
        ({"plan_digest": "0"}, "was trained by another plan"),
        ({"fold": 1}, "is of fold 1"),
        ({"network": "\x1b[2J"}, "control characters"),
        ({"network": "vit"}, "unknown network 'vit'; known are gn_unet"),
        ({"network": "segnet"}, "the network has "),
        ({"recipe": {"width": 10**9, "norm_groups": 1}}, "a width of 1000000000 is above 1024"),
        ({"recipe": {"width": 1024}}, "the network has 36992 bytes, the archive 272"),
        ({"recipe": {"width": 8}}, "the network has "),
        ({"recipe": {"width": 0}}, "width and norm_groups must be at least 1"),
        ({"recipe": {"learning_rate": 1e999}}, "is not readable JSON (Infinity is not a number)"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    members: dict[str, bytes], tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    """Its digest fits: whoever made the archive meant it. Both folds say the same, but for what sets them apart."""
    both = 1 if "plan names" in words or "becomes part" in words or "must map" in words else 0
    runs = {f"fold_{k}/run.json": changed_run(members, k, **fields) for k in range(both + 1)}
    path = rebuilt(tmp_path / "a.zip", members | runs)
    message = printable_refusal(lambda: load(path))
    assert message.startswith(f"{path}: ") and words in message


def test_networks_of_any_size_take_no_memory_before_they_are_checked(members: dict[str, bytes], tmp_path: Path) -> None:
    """A GCN of width 1024 would take tens of gigabytes."""
    run = changed_run(members, recipe={"width": 1024}, network="gcn")
    path = rebuilt(tmp_path / "a.zip", members | {"fold_0/run.json": run})
    before = resource_peak()
    assert "the network has " in printable_refusal(lambda: load(path, folds=[0]))
    assert resource_peak() - before < 200 << 20


def resource_peak() -> int:
    """Bytes of this process, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_weights_of_another_shape_kind_or_value_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    name = weight_files.weights_name(0, "head.weight")
    array = np.load(io.BytesIO(members[name]))

    def message(content: bytes | None, extra: dict[str, bytes] | None = None) -> str:
        kept = {n: c for n, c in members.items() if n != name} | ({name: content} if content is not None else {})
        return printable_refusal(lambda: load(rebuilt(tmp_path / "a.zip", kept | (extra or {}))))

    words = "head.weight.npy is not an array of float32 and shape (1, 4, 1, 1)"
    assert words in message(weight_files.npy(array.reshape(4, 1, 1, 1)))
    assert words in message(weight_files.npy(array).replace(b"<f4", b"<i4"))
    objects = io.BytesIO()
    np.save(objects, np.array([print], dtype=object), allow_pickle=True)
    pickled = objects.getvalue()
    size = len(members[name])
    assert "the network has" in message(pickled) and words in message(pickled[:size].ljust(size, b"."))
    bad = array.copy()
    bad.flat[2] = np.nan
    assert "head.weight.npy holds weights that are not finite" in message(weight_files.npy(bad))
    assert "the archive no such tensor" in message(None)
    assert "the network has no such tensor" in message(members[name], {weight_files.weights_name(0, "more"): b""})
    assert "contains evil.py" in message(members[name], {"evil.py": b""})
    assert "contains fold_2/weights/a.npy" in message(members[name], {"fold_2/weights/a.npy": b""})


def test_a_plan_of_another_training_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    plan = json.loads(members[model_store.PLAN]) | {"target_shape": [64, 64]}
    path = rebuilt(tmp_path / "a.zip", members | {model_store.PLAN: json.dumps(plan).encode()})
    assert "was trained by another plan" in printable_refusal(lambda: load(path))
    no_folds = {name: content for name, content in members.items() if not name.startswith("fold_")}
    assert "contains no trained fold" in printable_refusal(lambda: load(rebuilt(tmp_path / "b.zip", no_folds)))


def test_folds_that_are_not_there_are_refused(good: Path) -> None:
    assert "the folds 0, 1, not 5" in printable_refusal(lambda: load(good, folds=[0, 5]))
    for folds in ("0", 0, ["a"], [0.5]):
        assert "`folds=" in printable_refusal(lambda folds=folds: load(good, folds=folds))  # type: ignore[misc]


@pytest.mark.parametrize("name", ["fold_00/run.json", "fold_x/run.json", "fold_²/run.json", "fold_9999999999/run.json"])
def test_a_folds_number_has_one_spelling(name: str) -> None:
    assert (
        not model_store._is_run(name)
        and model_store._is_run("fold_0/run.json")
        and model_store._is_run("fold_12/run.json")
    )


def test_another_archive_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.writestr("a.dcm", b"")
    assert "lacks manifest.json" in printable_refusal(lambda: load(tmp_path / "scans.zip"))
    assert "none.zip: not found" in printable_refusal(lambda: load(tmp_path / "none.zip"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_gives_equal_weights(data: st.DataObject, good: Path) -> None:
    """Bytes changed anywhere, or half of the time where no weights lie; or the end cut off."""
    content = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        last = archive.getinfo(verified_archive.MANIFEST).header_offset
        first = archive.getinfo(weight_files.weights_name(0, "enter.0.weight")).header_offset
    for _ in range(data.draw(st.integers(0, 2))):
        where = st.integers(0, len(content) - 1) | st.integers(last, len(content) - 1) | st.integers(0, first)
        content[data.draw(where)] ^= data.draw(st.integers(1, 255))
    length = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    bad = good.with_name("bad.zip")
    bad.write_bytes(content[:length])
    try:
        model = load(bad)
    except DvtError as error:
        assert str(error).isprintable()
    else:
        assert model.digest == load(good).digest


def test_an_unchanged_plan_travels_whole(trained_once: Workspace, members: dict[str, bytes]) -> None:
    plan = json_records.load(Plan, trained_once.results_plan("gn_unet"), "")
    assert json_records.parse(Plan, members[model_store.PLAN].decode()) == plan


@pytest.mark.parametrize("name", ["toy.zip.gz", "toy.zip"])
def test_an_archive_compressed_with_gzip_is_refused_with_the_command(good: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(good.read_bytes()))
    for act in (lambda: load(path), lambda: description.describe_archive(path)):
        message = printable_refusal(act)
        assert message.startswith(f"{path}: ") and f"gunzip -c {name} > " in message
        assert not message.endswith(f"> {name}")  # this would overwrite the input


def test_a_path_may_be_text(good: Path) -> None:
    assert load_model(str(good), setup=CPU).digest == load(good).digest
    assert description.describe_archive(str(good)).path == good


@pytest.mark.parametrize("content", [b"", b"no ZIP", b"PK"])
def test_a_gzip_file_of_something_else_is_not_a_model(tmp_path: Path, content: bytes) -> None:
    """Such as a scan. Unpacking would not help."""
    path = tmp_path / "scan.nii.gz"
    for data in (gzip.compress(content), gzip.compress(content)[:-9]):
        path.write_bytes(data)
        message = printable_refusal(lambda: load(path))
        assert "is not a model" in message and "gunzip" not in message


# --- the mask rule --------------------------------------------------------------------------------


def with_rule(results: Path, fold: int, threshold: float | None, smallest_mm3: float) -> Path:
    """Write a mask rule next to the weights of a fold, and return its file."""
    weights = weight_files.weights_digest(checkpoint.weights(results / f"fold_{fold}" / "checkpoint.pt"))
    path = results / f"fold_{fold}" / "postprocessing.json"
    chosen = Postprocessing(
        threshold=threshold, smallest_component_mm3=smallest_mm3, patients=3, plain_score=0.5, score=0.6,
        weights=weights,
    )  # fmt: skip
    json_records.save(chosen, path)
    return path


@pytest.mark.parametrize("floats", ["float32", "float16"])
def test_the_mask_rule_of_each_fold_travels_with_the_archive(trained: Workspace, tmp_path: Path, floats: str) -> None:
    results = trained.results("gn_unet")
    with_rule(results, 0, 0.3, 10.0)
    with_rule(results, 1, 0.4, 30.0)
    path = model_export.export_model(results, tmp_path / "a.zip", weights=floats).path
    there, here = load(path), load(results)
    assert there.rule == here.rule == MaskRule(threshold=0.35, smallest_component_mm3=20.0)
    assert load(path, folds=[1]).rule == MaskRule(threshold=0.4, smallest_component_mm3=30.0)
    assert (there.digest == here.digest) is (floats == "float32")
    described = description.describe_archive(path)
    text = description.to_text(described)
    assert described.digest == there.digest and "masks       0: threshold 0.3, " in text and "all folds: " in text
    if floats == "float32":
        assert description.to_text(model_export.describe_folder(results)).splitlines()[2:] == text.splitlines()[2:]


def test_a_mask_rule_changes_the_digest_and_a_plain_one_does_not(trained: Workspace, good: Path) -> None:
    results, digests = trained.results("gn_unet"), set()
    assert load(results).digest == load(good).digest
    for threshold, smallest_mm3 in ((None, 0.0), (0.3, 0.0), (0.3, 5.0), (None, 5.0)):
        with_rule(results, 0, threshold, smallest_mm3)
        digests.add(load(results).digest)
    assert len(digests) == 4 and load(good).digest in digests


def test_scores_of_another_mask_rule_are_not_exported(trained: Workspace, tmp_path: Path) -> None:
    results = trained.results("gn_unet")
    evaluate(trained, "gn_unet")
    assert model_export.export_model(results, tmp_path / "a.zip").omitted == ()
    path = with_rule(results, 0, 0.3, 0.0)
    (why,) = model_export.export_model(results, tmp_path / "b.zip").omitted
    assert f"{path}: has changed" in why
    evaluate(trained, "gn_unet")
    path.unlink()
    (why,) = model_export.export_model(results, tmp_path / "c.zip").omitted
    assert f"{path}: has changed" in why


def test_a_mask_rule_for_other_weights_or_of_nonsense_is_refused(
    trained: Workspace, members: dict[str, bytes], tmp_path: Path
) -> None:
    path = with_rule(trained.results("gn_unet"), 0, 0.3, 0.0)
    name, content = "fold_1/postprocessing.json", path.read_bytes()
    foreign = rebuilt(tmp_path / "a.zip", members | {name: content})
    for look in (load, description.describe_archive):
        message = printable_refusal(lambda look=look: look(foreign))  # type: ignore[misc]
        assert "postprocessing.json" in message and "Download" in message and "predict_fold" not in message
    shutil.copyfile(path, trained.fold("gn_unet", 1).postprocessing)
    for use in (load, model_export.describe_folder, lambda p: model_export.export_model(p, tmp_path / "c.zip")):
        assert "fold_1" in printable_refusal(lambda use=use: use(trained.results("gn_unet")))  # type: ignore[misc]
    bad = content.replace(b"0.3", b"3.0")
    assert "threshold" in printable_refusal(
        lambda: load(rebuilt(tmp_path / "b.zip", members | {"fold_0/postprocessing.json": bad}))
    )


def test_an_archive_counts_held_out_cases_and_does_not_name_them(trained: Workspace, tmp_path: Path) -> None:
    file = trained.fold("gn_unet", 0).run
    run = json_records.load(Run, file, "")
    json_records.save(dataclasses.replace(run, train=run.train[:1], held_out=run.train[1:]), file)
    done = model_export.export_model(trained.results("gn_unet"), tmp_path / "a.zip")
    assert any("none was chosen" in line for line in done.omitted)
    stored = description.describe_archive(done.path)
    assert stored.runs[0].held_out == (model_store.WITHHELD,) and len(stored.runs[0].train) == 1
    assert "on 1 training case; 1 held-out case; 2 test cases" in description.to_text(stored)


def test_an_archive_lacks_new_fields_that_have_their_default(trained: Workspace, tmp_path: Path) -> None:
    """So versions of dvtplan from before these fields read it."""
    file = trained.fold("gn_unet", 1).run
    run = json_records.load(Run, file, "")
    json_records.save(dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, held_out=0.25)), file)
    path = model_export.export_model(trained.results("gn_unet"), tmp_path / "a.zip").path
    with zipfile.ZipFile(path) as archive:
        first, second = (json.loads(archive.read(f"fold_{k}/run.json")) for k in (0, 1))
    assert not {"held_out", "schedule"} & set(first) and not {"held_out", "mirror", "context"} & set(first["recipe"])
    assert second["recipe"]["held_out"] == 0.25
