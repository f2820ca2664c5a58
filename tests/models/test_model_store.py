"""Models on disk: an archive gives the network of its folder to the bit, and no hostile one gets near a network."""

from __future__ import annotations

import gzip
import io
import json
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core import json_records, verified_archive
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.inference.model import Model, load_model
from dvtplan.models import checkpoint, description, devices, model_store, weight_files
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from dvtplan.reporting import model_export

CPU = devices.choose("cpu")


@pytest.fixture(scope="module")
def good(trained_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of both folds. Read it; never write to it."""
    target = tmp_path_factory.mktemp("good") / "toy.zip"
    model_export.export_model(trained_once.results("gn_unet"), target)
    return target


@pytest.fixture(scope="module")
def members(good: Path) -> dict[str, bytes]:
    """What is in it, but the manifest."""
    return members_of(good)


@pytest.fixture(scope="module")
def half_members(trained_once: Workspace, good: Path) -> dict[str, bytes]:
    """The same of an archive with float16 weights."""
    target = good.with_name("half.zip")
    return members_of(model_export.export_model(trained_once.results("gn_unet"), target, weights="float16").path)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != verified_archive.MANIFEST}


def refused(act: Callable[[], object]) -> str:
    """The message of the refusal, which is one line that a terminal can show."""
    with pytest.raises(DvtError) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)


def load(path: Path, **how: Any) -> Model:
    return load_model(path, setup=CPU, **how)


def rebuilt(path: Path, members: Mapping[str, bytes]) -> Path:
    """An archive whose digests fit, as one would make it who knows the format."""
    with verified_archive.write_archive(path, model_store.KIND) as archive:
        for name, content in members.items():
            archive.add(name, content)
    return path


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
    assert "spacing_mm" in refused(lambda: load(rebuilt(tmp_path / "a.zip", other)))


def test_numpy_reads_the_weights_without_unpickling(
    trained_once: Workspace, members: dict[str, bytes], tmp_path: Path
) -> None:
    found = checkpoint.weights(trained_once.fold("gn_unet", 1).checkpoint)
    for name, array in found.items():
        here = np.load(io.BytesIO(members[weight_files.weights_name(1, name)]), allow_pickle=False)
        assert here.dtype == array.dtype and np.array_equal(here, array)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (16, 1, 3, 3), (10**9, 10**9)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_headers_are_numpys(dtype: str, shape: tuple[int, ...]) -> None:
    """As ``numpy.lib.format`` reads them; aligned to 64 bytes."""
    header = weight_files.npy_header(dtype, shape)
    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(dtype))
    assert file.tell() == len(header) and len(header) % 64 == 0


def test_numbers_are_little_endian_in_c_order_whatever_the_array() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    turned = np.asfortranarray(array)
    assert weight_files.npy(turned) == weight_files.npy(array) and weight_files.npy(array).endswith(array.tobytes())
    assert weight_files.weights_digest({"a": turned}) == weight_files.weights_digest({"a": array})
    assert weight_files.weights_digest({"a": array}) != weight_files.weights_digest({"a": array.reshape(3, 2)})


# --- float16 --------------------------------------------------------------------------------------


def test_float16_weights_of_any_shape_are_widened_and_counters_stay(tmp_path: Path) -> None:
    """The type is that of the first float weights, wherever they lie. The digest is of the widened weights."""
    numbers = [np.array(2**53 + 1), *(np.array(x, np.float16) for x in (-0.1, [[]], [[1 / 3], [-2]], [6e-8, -0.0]))]
    arrays = {f"t{k}": array for k, array in enumerate(numbers)}
    expected = {name: ("int64" if name == "t0" else "float32", array.shape) for name, array in arrays.items()}
    content = {weight_files.weights_name(0, name): weight_files.npy(array) for name, array in arrays.items()}
    with verified_archive.open_archive(rebuilt(tmp_path / "a.zip", content), model_store.KIND) as archive:
        found = weight_files.archived_weights(archive, 0, expected)
        assert description._archived_digest(archive, 0, "float16") == weight_files.weights_digest(found)
    for name, (dtype, _) in expected.items():
        assert weight_files.npy(found[name]) == weight_files.npy(arrays[name].astype(dtype))


def test_mixed_types_are_refused(members: dict[str, bytes], half_members: dict[str, bytes], tmp_path: Path) -> None:
    """In one fold or between two, to load and to tell of."""
    last = weight_files.weights_name(1, "head.weight")
    fold = {name: content for name, content in half_members.items() if name.startswith("fold_1/")}
    for k, changed in enumerate((fold, {last: half_members[last]})):
        path = rebuilt(tmp_path / f"{k}.zip", members | changed)
        assert "as float32 the network has " in refused(lambda path=path: load(path))
        assert " is not an array of float32 or int64" in refused(lambda path=path: description.describe_archive(path))
        assert load(path, folds=[0]).folds == (0,)
    path = rebuilt(tmp_path / "back.zip", half_members | {last: members[last]})
    assert f"{last}: as float16 the network has 136 bytes, the archive 144 bytes" in refused(lambda: load(path))


def test_a_header_of_another_float_type_than_its_size_is_refused(
    members: dict[str, bytes], half_members: dict[str, bytes], tmp_path: Path
) -> None:
    name = weight_files.weights_name(0, "head.weight")
    for whole, kind, ours, other in ((members, "float32", b"<f4", b"<f2"), (half_members, "float16", b"<f2", b"<f4")):
        path = rebuilt(tmp_path / "a.zip", whole | {name: whole[name].replace(ours, other)})
        assert f"{name} is not an array of {kind} and shape (1, 4, 1, 1)" in refused(lambda path=path: load(path))
        assert f"{name} is not an array of {kind}" in refused(lambda path=path: description.describe_archive(path))
        swapped = {n: c.replace(ours, other) if "/weights/" in n else c for n, c in whole.items()}
        path = rebuilt(tmp_path / "b.zip", swapped)  # all alike: only their sizes tell
        assert "the network has " in refused(lambda path=path: load(path))


@pytest.mark.parametrize("bits", [0x7E00, 0x7C01, 0x7C00, 0xFC00])
def test_float16_without_a_finite_value_is_refused(half_members: dict[str, bytes], tmp_path: Path, bits: int) -> None:
    """NaN, quiet and signalling, and both infinities."""
    name = weight_files.weights_name(1, "head.weight")
    content = half_members[name][:-2] + bits.to_bytes(2, "little")
    path = rebuilt(tmp_path / "a.zip", half_members | {name: content})
    for act in (load, description.describe_archive):
        assert f"{name} holds weights that are not finite" in refused(lambda act=act: act(path))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_loads_is_told_with_the_digest_that_it_loads_with(
    data: st.DataObject, half_members: dict[str, bytes], good: Path
) -> None:
    """One float16 tensor is changed or cut, and the manifest fits: whatever is not refused has one digest."""
    name = weight_files.weights_name(0, data.draw(st.sampled_from(["enter.0.weight", "head.weight", "head.bias"])))
    content = bytearray(half_members[name])
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, 30) | st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    path = rebuilt(good.with_name("bad.zip"), half_members | {name: bytes(content)})
    digests = []
    for act in (load, description.describe_archive):
        try:
            digests.append(act(path).digest)
        except DvtError as error:
            assert str(error).isprintable()
            digests.append(None)
    assert digests[0] in (None, digests[1])


# --- what is described ---------------------------------------------------------------------------------


def test_folder_and_archive_are_described_alike(trained_once: Workspace, good: Path) -> None:
    here = description.to_text(description.describe_archive(good)).splitlines()
    there = description.to_text(model_export.describe_folder(trained_once.results("gn_unet"))).splitlines()
    assert here[2:] == there[2:]
    text = "\n".join(here)
    run = json_records.load(Run, trained_once.fold("gn_unet", 0).run, "")
    for words in (
        "gn_unet, width 4, ",
        "weights     float32",
        f"{run.parameters:,} parameters",
        "channels    MR0",
        "classes     thrombus = 1",
        "0: 8 epochs on 2 cases, 2 left for testing",
        "1: 8 epochs on 2 cases, 2 left for testing",
        "slices along AP, as 32x32",
        "Toy: 4 cases of 4 patients, not phantoms",
        "spacing in mm: LR 2; AP 5; SI 2",
        "thrombus: in 4 cases; fewer than 5",
        load(good).digest,
        "not a medical device",
    ):
        assert words in text


INFO = """
import sys
from pathlib import Path
from dvtplan.models import description
description.to_text(description.describe_archive(Path(sys.argv[1])))
print(*[name for name in ("torch", "SimpleITK", "pandas", "scipy", "matplotlib") if name in sys.modules])
"""


def test_describing_an_archive_loads_nothing_heavy(good: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INFO, good], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


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
        ({"classes": {"../../home": 1}}, "which becomes part of file names"),
        ({"classes": {"": 1}}, "which becomes part of file names"),
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
    message = refused(lambda: load(path))
    assert message.startswith(f"{path}: ") and words in message


def test_networks_of_any_size_take_no_memory_before_they_are_checked(members: dict[str, bytes], tmp_path: Path) -> None:
    """A GCN of width 1024 would take tens of gigabytes."""
    run = changed_run(members, recipe={"width": 1024}, network="gcn")
    path = rebuilt(tmp_path / "a.zip", members | {"fold_0/run.json": run})
    before = resource_peak()
    assert "the network has " in refused(lambda: load(path, folds=[0]))
    assert resource_peak() - before < 200 << 20


def resource_peak() -> int:
    """Bytes of this process, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_weights_of_another_shape_kind_or_value_are_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    name = weight_files.weights_name(0, "head.weight")
    array = np.load(io.BytesIO(members[name]))

    def message(content: bytes | None, extra: dict[str, bytes] | None = None) -> str:
        kept = {n: c for n, c in members.items() if n != name} | ({name: content} if content is not None else {})
        return refused(lambda: load(rebuilt(tmp_path / "a.zip", kept | (extra or {}))))

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
    assert "was trained by another plan" in refused(lambda: load(path))
    no_folds = {name: content for name, content in members.items() if not name.startswith("fold_")}
    assert "contains no trained fold" in refused(lambda: load(rebuilt(tmp_path / "b.zip", no_folds)))


def test_folds_that_are_not_there_are_refused(good: Path) -> None:
    assert "the folds 0, 1, not 5" in refused(lambda: load(good, folds=[0, 5]))


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
    assert "lacks manifest.json" in refused(lambda: load(tmp_path / "scans.zip"))
    assert "none.zip: not found" in refused(lambda: load(tmp_path / "none.zip"))


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
        message = refused(act)
        assert message.startswith(f"{path}: ") and f"gunzip -c {name} > " in message
        assert not message.endswith(f"> {name}")  # this would overwrite the input


def test_a_path_may_be_text(good: Path) -> None:
    assert load_model(str(good), setup=CPU).digest == load(good).digest
    assert description.describe_archive(str(good)).path == good
