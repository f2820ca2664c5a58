"""The benchmark runs and reports its measurements; no test depends on the duration of anything."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest
from bench import earlier, results, speed_probe, timing
from bench.inputs import Bench
from bench.results import Row, absent

from dvtplan.core import allocator

ROW = Row(section="train", what="loop over bare steps", value=0.5, unit="x", at_least=0.95, note="slices/s")


# --- figures and goals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "verdict"),
    [
        (0.95, 0.95, None, "met"),
        (0.94, 0.95, None, "missed"),
        (1.5, None, 1.5, "met"),
        (1.6, None, 1.5, "missed"),
        (7.0, None, None, ""),
        (math.nan, 0.95, None, "missed"),
        (math.nan, None, 1.0, "missed"),
        (math.nan, None, None, "not measured"),
    ],
)
def test_a_value_is_compared_with_its_goal(
    value: float, at_least: float | None, at_most: float | None, verdict: str
) -> None:
    row = Row(section="s", what="w", value=value, unit="x", at_least=at_least, at_most=at_most)
    assert row.verdict == verdict


def test_the_table_shows_what_was_missed_and_what_was_not_measured() -> None:
    lines = results.to_text([ROW, absent("parallel", "two GPUs over one", "PyTorch sees 0 GPU")]).splitlines()
    assert lines[1].split() == [
        "train",
        "loop",
        "over",
        "bare",
        "steps",
        "0.5",
        "x",
        ">=",
        "0.95",
        "missed",
        "slices/s",
    ]
    assert "not measured" in lines[2] and lines[2].endswith("PyTorch sees 0 GPU")


def test_json_has_the_machine_the_command_and_null_for_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    results.save([ROW, absent("parallel", "two", "why")], {"cores": 2}, "python tools/benchmark.py", path)
    content = json.loads(path.read_text())
    assert content["command"] == "python tools/benchmark.py" and content["machine"] == {"cores": 2}
    assert [(row["value"], row["verdict"]) for row in content["rows"]] == [(0.5, "missed"), (None, "not measured")]


# --- timing ---------------------------------------------------------------------------------------


def test_tasks_take_turns_and_may_return_their_own_duration() -> None:
    order: list[str] = []

    def thing(name: str, seconds: list[float]) -> float:
        order.append(name)
        return seconds.pop(0)

    a, b = [9.0, 2.0, 4.0, 9.0], [9.0, 1.0, 4.0, 3.0]
    turns = timing.in_turn({"a": lambda: thing("a", a), "b": lambda: thing("b", b)}, rounds=3)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]  # a warm-up, then every other round backwards
    assert turns.rounds == {"a": (2.0, 4.0, 9.0), "b": (1.0, 4.0, 3.0)}
    assert turns.seconds("a") == 4.0
    # The median of the ratios of each round (2, 1, 3), not the ratio of the medians 4 and 3.
    assert turns.ratio("a", "b") == 2.0 and turns.spread("a", "b") == (1.0, 3.0)


def test_the_output_of_a_child_is_returned_and_a_failing_child_is_an_error() -> None:
    assert timing.child([sys.executable, "-c", "import os; print(os.environ['HERE'])"], {"HERE": "yes"})[1] == "yes\n"
    with pytest.raises(RuntimeError, match=r"status 1 \(ValueError: why\)"):
        timing.child([sys.executable, "-c", "raise ValueError('why')"])


def test_peak_memory_is_that_of_the_child() -> None:
    program = "import sys; from bench.memory_probe import peak_bytes; b = b'x' * int(sys.argv[1]); print(peak_bytes())"
    tools = {"PYTHONPATH": str(Path(benchmark.__file__).parent)}
    ballast = b"x" * (3 * 10**8)  # memory of the parent, which must not count
    small, large = (int(timing.child([sys.executable, "-c", program, str(n)], tools)[1]) for n in (1, 2 * 10**8))
    assert small < len(ballast)
    assert large - small > 1.5 * 10**8


# --- the command ----------------------------------------------------------------------------------


def test_every_section_runs_on_the_smallest_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    options = [
        "--tiny",
        "--rounds",
        "1",
        "--device",
        "cpu",
        "--scratch",
        str(tmp_path / "scratch"),
        "--json",
        str(path),
    ]
    assert benchmark.main(options) == 0
    content = json.loads(path.read_text())
    assert {row["section"] for row in content["rows"]} == set(benchmark.SECTIONS)
    reasons = [row["note"] for row in content["rows"] if row["value"] is None]
    assert sum("--nnunet" in reason for reason in reasons) == 2 and reasons.count("no GPU") == 4
    assert reasons.count("needs a CPU and --earlier") == 1 and len(reasons) == 7
    assert all(row["value"] is None or math.isfinite(row["value"]) for row in content["rows"])
    same = next(row for row in content["rows"] if row["what"].startswith("voxels that differ"))
    assert same["value"] < 1e-3  # of 10,240: no more than rounding
    assert {"processor", "cores", "versions", "commit", "date"} <= set(content["machine"])
    assert "training rate" in capsys.readouterr().out


def test_an_earlier_commit_runs_the_same_tasks_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"plain": 8.0, "forward": 4.0, "step": 6.0}
    trees: list[str] = []

    def child(words: list[str], variables: dict[str, str]) -> tuple[float, str]:
        tree = variables["PYTHONPATH"].split(os.pathsep)[0]
        trees.append(tree)
        return 0.0, f"{seconds[words[4]] / (1 if tree == str(tmp_path) else 2)}\n"

    monkeypatch.setattr(earlier, "child", child)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    bench = Bench(scratch=tmp_path, device="cpu", rounds=2, tiny=True, earlier=tmp_path)
    rows = {row.what.partition(",")[2]: row for row in earlier.earlier(bench)}
    assert [row.value for row in rows.values()] == [2.0, 2.0, 2.0]
    assert all("ONEDNN_MAX_CPU_ISA=AVX2" in (row.note or "") for row in rows.values())
    assert trees[:3] == [
        str(Path(benchmark.__file__).parents[1]),
        str(tmp_path),
        str(Path(benchmark.__file__).parents[1]),
    ]


@pytest.mark.parametrize("task", ["plain", "forward", "step"])
def test_every_task_of_the_comparison_runs(
    task: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: None)  # it would hold for the other tests, too
    speed_probe.main(task, 16, 16, 1)
    assert float(capsys.readouterr().out) > 0


def test_an_unknown_section_is_refused_before_anything_is_made() -> None:
    tool = Path(benchmark.__file__)
    done = subprocess.run([sys.executable, tool, "--only", "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "invalid choice: 'speed'" in done.stderr
