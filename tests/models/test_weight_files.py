"""Weights in a model archive: .npy files of float32 or float16, and their digests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.model_archives import load, rebuilt
from helpers.refusals import printable_refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from dvtplan.core import verified_archive
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.models import checkpoint, description, model_store, weight_files

# --- files ----------------------------------------------------------------------------------------


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
    """The type is that of the first float weights, wherever they lie."""
    numbers = [np.array(2**53 + 1), *(np.array(x, np.float16) for x in (-0.1, [[]], [[1 / 3], [-2]], [6e-8, -0.0]))]
    arrays = {f"t{k}": array for k, array in enumerate(numbers)}
    expected = {name: ("int64" if name == "t0" else "float32", array.shape) for name, array in arrays.items()}
    content = {weight_files.weights_name(0, name): weight_files.npy(array) for name, array in arrays.items()}
    with verified_archive.open_archive(rebuilt(tmp_path / "a.zip", content), model_store.KIND) as archive:
        found = weight_files.archived_weights(archive, 0, expected)
    for name, (dtype, _) in expected.items():
        assert weight_files.npy(found[name]) == weight_files.npy(arrays[name].astype(dtype))


def test_mixed_types_are_refused(members: dict[str, bytes], half_members: dict[str, bytes], tmp_path: Path) -> None:
    """In one fold or between two, to load and to tell of."""
    last = weight_files.weights_name(1, "head.weight")
    fold = {name: content for name, content in half_members.items() if name.startswith("fold_1/")}
    for k, changed in enumerate((fold, {last: half_members[last]})):
        path = rebuilt(tmp_path / f"{k}.zip", members | changed)
        assert "as float32 the network has " in printable_refusal(lambda path=path: load(path))
        assert "as float32 the network has " in printable_refusal(lambda path=path: description.describe_archive(path))
        assert load(path, folds=[0]).folds == (0,)
    path = rebuilt(tmp_path / "back.zip", half_members | {last: members[last]})
    assert f"{last}: as float16 the network has 136 bytes, the archive 144 bytes" in printable_refusal(
        lambda: load(path)
    )


def test_a_header_of_another_float_type_than_its_size_is_refused(
    members: dict[str, bytes], half_members: dict[str, bytes], tmp_path: Path
) -> None:
    name = weight_files.weights_name(0, "head.weight")
    for whole, kind, ours, other in ((members, "float32", b"<f4", b"<f2"), (half_members, "float16", b"<f2", b"<f4")):
        path = rebuilt(tmp_path / "a.zip", whole | {name: whole[name].replace(ours, other)})
        assert f"{name} is not an array of {kind} and shape (1, 4, 1, 1)" in printable_refusal(
            lambda path=path: load(path)
        )
        assert f"{name} is not an array of {kind}" in printable_refusal(
            lambda path=path: description.describe_archive(path)
        )
        swapped = {n: c.replace(ours, other) if "/weights/" in n else c for n, c in whole.items()}
        path = rebuilt(tmp_path / "b.zip", swapped)  # all alike: only their sizes tell
        assert "the network has " in printable_refusal(lambda path=path: load(path))


@pytest.mark.parametrize("bits", [0x7E00, 0x7C01, 0x7C00, 0xFC00])
def test_float16_without_a_finite_value_is_refused(half_members: dict[str, bytes], tmp_path: Path, bits: int) -> None:
    """NaN, quiet and signalling, and both infinities."""
    name = weight_files.weights_name(1, "head.weight")
    content = half_members[name][:-2] + bits.to_bytes(2, "little")
    path = rebuilt(tmp_path / "a.zip", half_members | {name: content})
    for act in (load, description.describe_archive):
        assert f"{name} holds weights that are not finite" in printable_refusal(lambda act=act: act(path))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_loads_is_described_with_the_digest_that_it_loads_with(
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
