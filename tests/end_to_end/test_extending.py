"""The recipes of docs/developer/extending.md, applied to a copy of the package and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.datasets import write_raw

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "developer" / "extending.md"
STEP = re.compile(
    r"^(?:At the end of|In the new file|In) `(?P<file>\S+)`"
    r"(?:, (?P<how>after|in place of) the line `(?P<line>[^\n]+)`)?:\n\n```python\n(?P<code>.*?)```$",
    re.MULTILINE | re.DOTALL,
)


def apply(step: re.Match[str], root: Path) -> None:
    """Change one file as a step of the page says."""
    path = root / step["file"]
    if step["line"] is None:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{text}\n\n{step['code']}".lstrip(), encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [k for k, line in enumerate(lines) if line.strip() == step["line"]]
    assert len(places) == 1, f"{path.name} has {len(places)} lines {step['line']!r}"
    kept = places[0] if step["how"] == "in place of" else places[0] + 1
    path.write_text("".join([*lines[:kept], step["code"], *lines[places[0] + 1 :]]), encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an extended copy of the package."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "dvtplan", root / "dvtplan", ignore=shutil.ignore_patterns("__pycache__"))
    for step in STEP.finditer(PAGE.read_text(encoding="utf-8")):
        apply(step, root)
    return root


def run(root: Path, *words: str) -> str:
    """Run a command of the package under a root. Return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "dvtplan.cli", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_code_block_of_the_page_is_a_step() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(STEP.findall(page)) == page.count("```python\n")
    for section in page.split("\n## ")[1:]:
        if "```" not in section:
            continue
        lines = sum(len(step["code"].splitlines()) for step in STEP.finditer(section))
        assert 1 <= lines <= 15, section.partition("\n")[0]


def test_loss_recipe_augmentation_network_and_measure_work_together(extended: Path) -> None:
    workspace = write_raw(extended)
    run(extended, "plan_and_preprocess", "--folds", "2", "--jobs", "1")
    variants = json.loads(workspace.plan.read_text())["variants"]
    assert len(variants) == 36 and {v["gamma"] for v in variants} == {0.8, 1.0, 1.25}

    words = ["--network", "plain", "--recipe", "overlap", "--tversky-missed", "0.8"]
    run(extended, "train", "0", *words, "--device", "cpu", "--workers", "0")
    trained = json.loads(workspace.fold("plain", 0).run.read_text())
    recipe = trained["recipe"]
    assert (recipe["loss"], recipe["tversky_missed"], recipe["width"]) == ("tversky", 0.8, 4)
    assert recipe["name"] == "overlap with tversky_missed" and trained["parameters"] < 1000
    loss = workspace.fold("plain", 0).epochs.read_text().splitlines()[1].split(",")[1]
    assert 0 < float(loss) < 1  # a Tversky loss; the focal loss of noise is larger

    assert "F2 score" in run(extended, "evaluate", "--network", "plain", "--folds", "0", "--jobs", "1")
    assert ",f2," in (workspace.results("plain") / "metrics.csv").read_text().partition("\n")[0]
    assert "tversky (missed 0.8)" in run(extended, "model", "info", str(workspace.results("plain")))
