"""Messages, progress bars, and text of sizes and durations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvtplan.core.console import info, progress, progress_in_blocks
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration, size
from dvtplan.models.epoch_log import read_epochs, write_epochs
from dvtplan.training.progress import Stopwatch

ROWS = [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.25}, {"epoch": 2, "loss": 0.125}]


def test_a_bar_yields_every_item_and_prints_nothing_for_no_items(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress([], "Verify")) == []
    assert capfd.readouterr().err == ""
    assert list(progress("abc", "Verify")) == ["a", "b", "c"]
    assert "Verify: 100%" in capfd.readouterr().err


def test_a_bar_of_blocks_counts_their_items(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress_in_blocks(10, 4, "slices")) == [(0, 4), (4, 8), (8, 10)]
    assert re.findall(r"\d+/10 ", capfd.readouterr().err)[-1] == "10/10 "


def test_notes_go_to_stderr_and_with_the_time_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "fold_0" / "log.txt"
    info("first", log)
    info("second Ω", log)
    info("third")
    out, err = capfd.readouterr()
    assert (out, err.split()) == ("", ["first", "second", "Ω", "third"])
    assert [line.split(" ", 1)[1] for line in log.read_text(encoding="utf-8").splitlines()] == [
        "first",
        "second Ω",
    ]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", log.read_text(encoding="utf-8"))


def test_a_log_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(DvtError, match=r"log.txt: cannot be written \(Is a directory\)"):
        info("first", tmp_path / "log.txt")


def test_epochs_are_read_up_to_the_one_at_which_training_resumes(tmp_path: Path) -> None:
    path = tmp_path / "epochs.csv"
    assert read_epochs(path, 3) == []
    write_epochs(path, ROWS)
    assert path.read_text() == "epoch,loss\n0,0.5\n1,0.25\n2,0.125\n"
    assert [row["loss"] for row in read_epochs(path, 2)] == ["0.5", "0.25"]
    write_epochs(path, read_epochs(path, 2))
    assert path.read_text() == "epoch,loss\n0,0.5\n1,0.25\n"


@pytest.mark.parametrize("text", ["loss\n1\n", "epoch,loss\nx,1\n", "epoch\n\xff".encode("latin-1"), "loss,epoch\n1\n"])
def test_a_table_of_something_else_is_one_clear_line(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "epochs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DvtError, match=r"epochs.csv: is not a table of epochs \(.*Move it away, then run again."):
        read_epochs(path, 3)


def test_waiting_and_working_are_measured_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def stream(step: float):  # type: ignore[no-untyped-def]
        for item in "ab":
            now[0] += step
            yield item

    watch = Stopwatch()
    for _ in watch.over(stream(1.0)):
        now[0] += 3.0
    assert watch.seconds() == 8.0
    assert watch.waiting_share() == 0.25


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (48 * 3600, "2.0 days"),
        (59.7, "1 min 00 s"), (3599.6, "1 h 00 min"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 kB"), (12, "0.012 kB"), (999_000, "999 kB"), (999_600, "1 MB"), (12e6, "12 MB"),
        (999.4e6, "999 MB"), (999.6e6, "1 GB"), (3.44e9, "3.44 GB"), (1.2e12, "1.2 TB"),
    ],
)  # fmt: skip
def test_sizes_in_words(count: float, text: str) -> None:
    assert size(count) == text


@given(st.floats(1, 9e14))
def test_a_size_never_reads_as_an_exponent(count: float) -> None:
    assert "e" not in size(count)
    number, unit = size(count).split()
    assert float(number) * {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit] == pytest.approx(count, rel=6e-3)
