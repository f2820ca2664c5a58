"""Standard streams that are closed, full, or cannot show every letter."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dvtplan.cli import streams
from dvtplan.core import console

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")


def shell(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the overview of the commands in a shell, with redirections."""
    line = f"{sys.executable} -m dvtplan {command}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, env={**os.environ, **env})


@needs_full
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (">/dev/full", 1),  # the output is lost
        ("train --help >/dev/full", 1),
        (">&-", 0),  # nobody wants it
        ("2>/dev/full", 0),
        ("train --wrong 2>/dev/full", 2),
        ("evaluate --root /nowhere 2>/dev/full", 1),
        ("evaluate --root /nowhere 2>&- >&- <&-", 1),
    ],
)
def test_a_stream_that_cannot_be_written_changes_the_status_only_where_output_is_lost(
    command: str, status: int
) -> None:
    done = shell(command)
    assert done.returncode == status
    expected = "No space left on device" if status == 1 and ">/dev/full" in command and "2>" not in command else ""
    assert expected in done.stderr and done.stderr.count("\n") == bool(expected)


CLOSED = """
import os, sys
from dvtplan.cli import streams
streams.prepare()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    os.write(1, b"printed by a library"); os.write(2, b"and a warning"); print("a line")
    file.write("content")
"""


def test_what_is_printed_to_a_closed_stream_does_not_reach_a_file(tmp_path: Path) -> None:
    words = [sys.executable, "-c", CLOSED, str(tmp_path / "file")]
    line = " ".join(f"'{word}'" for word in words) + " <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], timeout=60).returncode == 0
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"M\xfcller"), ("utf-8", "Müller".encode())])
def test_a_name_with_umlauts_is_printed_on_every_terminal(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    streams.prepare()
    print("Müller")
    sys.stdout.flush()
    assert written.getvalue() == shown + b"\n"


def test_the_plain_locale_shows_tables_with_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python gives stdout the errors surrogateescape in the locale C, which cannot write ±."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="surrogateescape"))
    streams.prepare()
    print("0.89 ± 0.08")
    sys.stdout.flush()
    assert written.getvalue() == rb"0.89 \xb1 0.08" + b"\n"


def test_a_name_of_no_encoding_is_printed_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8"))
    streams.prepare()
    print(os.fsdecode(b"M\xfcller"))
    sys.stdout.flush()
    assert written.getvalue() == b"M\xfcller\n"


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Full(), None])
def test_work_goes_on_without_its_messages(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    console.info("a message")
    console.warn("a warning")
    assert list(console.progress([1, 2], "Work")) == [1, 2]


def test_output_for_a_full_disk_is_dropped_and_the_reason_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with streams.output() as output:
        print("a line")
        print("another")
    assert output.failure is not None and output.failure.errno == 28
