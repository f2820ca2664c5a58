"""Figures of phantom patients: they are drawn, show what they claim, and overwrite nothing else."""

from __future__ import annotations

from pathlib import Path

import draw_phantom
import matplotlib.image
import numpy as np
import pytest
from phantom import figures
from phantom.case import PhantomCase, Request, make_case
from phantom.grid import SCALES

REQUEST = Request("tiny", 3, 2, "both", "easy")


@pytest.fixture(scope="module")
def case() -> PhantomCase:
    return make_case(REQUEST)


def coloured(path: Path) -> float:
    """Share of the pixels of an image that are not grey: contours."""
    pixels = matplotlib.image.imread(path).astype(float)[..., :3]
    if pixels.max() > 1:
        pixels /= 255
    return float(np.mean(np.ptp(pixels, axis=-1) > 0.25))


def test_a_whole_patient_shows_image_and_contours(case: PhantomCase, tmp_path: Path) -> None:
    figures.draw_patient(case, tmp_path / "patient.png")
    pixels = matplotlib.image.imread(tmp_path / "patient.png")
    assert pixels.shape[1] > pixels.shape[0] > 300 and pixels[..., 0].std() > 0.1
    assert coloured(tmp_path / "patient.png") > 0


def test_sections_have_no_contours(case: PhantomCase, tmp_path: Path) -> None:
    figures.draw_axial_sections(case, tmp_path / "sections.png")
    assert coloured(tmp_path / "sections.png") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["sections.png"]


def test_a_clot_is_shown_with_its_label_and_its_twin(tmp_path: Path) -> None:
    figures.draw_clot_examples([REQUEST, Request("tiny", 3, 5, "proximal")], tmp_path / "twins.png")
    assert coloured(tmp_path / "twins.png") > 0


def test_every_scale_and_difficulty_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "SCALES", {"tiny": SCALES["tiny"]})  # the larger ones take seconds each
    figures.draw_variants(REQUEST, tmp_path / "scales.png")
    pixels = matplotlib.image.imread(tmp_path / "scales.png")
    assert pixels.shape[1] > pixels.shape[0]


def test_a_box_stays_inside_the_slice(case: PhantomCase) -> None:
    mask = np.zeros(case.label.shape[1:], bool)
    mask[0, -1] = True
    rows, columns = figures._box_around(mask, case)
    assert rows.start >= 0 and columns.stop <= mask.shape[1]
    assert rows.stop - rows.start == 2 * round(figures.BOX_MM[0] / case.spacing_mm[1] / 2)


def test_a_figure_that_cannot_be_written_is_named_and_leaves_no_file(case: PhantomCase, tmp_path: Path) -> None:
    (tmp_path / "sections.png").mkdir()
    with pytest.raises(OSError, match=r"sections\.png: cannot be written \(Is a directory\)\. .* another --out\.$"):
        figures.draw_axial_sections(case, tmp_path / "sections.png")
    assert [p.name for p in tmp_path.iterdir()] == ["sections.png"]


def test_a_file_in_the_place_of_the_folder_is_one_line_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw_phantom, "make_case", lambda *_, **__: pytest.fail("made a case"))
    (tmp_path / "README.md").touch()
    assert draw_phantom.main(["--out", str(tmp_path / "README.md")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"draw_phantom: {tmp_path / 'README.md'}: expected a folder, found a file. ")
    assert error.endswith("--out.\n") and error.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_folder_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_phantom.main(["--out", "/proc/nope"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("draw_phantom: /proc: ")
    assert captured.err.count("\n") == 1 and captured.out == ""


def test_an_interruption_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(draw_phantom, "make_case", interrupt)
    assert draw_phantom.main(["--out", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert captured.err.startswith("draw_phantom: interrupted") and captured.err.count("\n") == 1
