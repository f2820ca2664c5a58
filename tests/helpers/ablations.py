"""An ablation without trainings: a program that writes the files of dvt_train, dvt_predict and dvt_evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ablation_study.conditions import AblationConditions
from ablation_study.results import Finished
from helpers.comparisons import method, run_record

from dvtplan.core import json_records
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.confusion import Confusion

FAKE = '''\
#!{python} -SE
"""A fake dvtplan."""
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
after = lambda name: pathlib.Path(words[words.index(name) + 1])
with open({calls!r}, "a") as log:
    log.write(" ".join(words) + chr(10))
if any(word in words for word in json.loads(pathlib.Path({fail!r}).read_text())):
    sys.exit("the disk is on fire")
if words[0] == "train":
    shutil.copytree({results!r}, after("--root") / "results", dirs_exist_ok=True)
elif words[0] == "predict":
    after("-o").mkdir()
elif words[0] == "evaluate":
    out = after("-o")
    out.mkdir(exist_ok=True)
    better = 2 if out.parts[-3] == "context_0" else 0
    seed = int(out.parts[-2][-1])
    lines = ["region,patient_id,dsc,tp,fp,fn,truth_ml,predicted_ml,false_positive_ml"]
    for n in range(6):
        tp = n + better + seed
        lines.append(f"all,00{{n}},0.5,{{tp}},{{10 - tp}},{{10 - tp}},1,1,0")
    (out / "metrics.csv").write_text(chr(10).join(lines) + chr(10))
    (out / "scores.json").write_text({record!r})
'''


def fake_program(folder: Path, workspace: Workspace) -> Path:
    """Make the fake program; ``fail.json`` next to it lists the words with which it fails, ``calls.txt`` the calls."""
    folder.mkdir(parents=True)
    fold = folder / "results" / workspace.dataset / "gn_unet" / "fold_0"
    json_records.save(run_record(), fold / "run.json")
    (fold / "checkpoint.pt").write_text("weights")
    fail(folder)
    record = {"schema": 1, "record": "ScoreRecord", "rule": "none. No regions", "metrics": "", "files": {}}
    names = {"calls": str(folder / "calls.txt"), "fail": str(folder / "fail.json"), "results": str(folder / "results")}
    program = folder / "dvt"
    program.write_text(FAKE.format(python=sys.executable, record=json.dumps(record), **names))
    program.chmod(0o755)
    return program


def fail(folder: Path, *words: str) -> None:
    """Let the program fail where one of these words is among its arguments."""
    (folder / "fail.json").write_text(json.dumps(words))


def calls(folder: Path) -> list[str]:
    """All calls so far."""
    return (folder / "calls.txt").read_text().splitlines()


def conditions(**changes: object) -> AblationConditions:
    """Made-up conditions."""
    plain: dict[str, object] = {
        "dataset": "Toy", "fold": 0, "budget_s": 60.0, "threads": 1, "splits_digest": "s", "jobs": 2,
        "processor": "a processor", "precision": "auto", "test": "Toy", "test_digest": "t", "values": "lesion",
        "phantom": False,
    }  # fmt: skip
    return AblationConditions(**{**plain, **changes})  # type: ignore[arg-type]


def finished(lever: str, seed: int, hits: dict[str, list[int]], **changes: object) -> Finished:
    """A finished run; of each region, patient n has hits[n] of 10 voxels right."""
    dsc = {
        region: {f"p{n}": Confusion(tp, 10 - tp, 10 - tp).exact("dsc") for n, tp in enumerate(counts)}
        for region, counts in hits.items()
    }
    words = ("--recipe", "modern") if lever == "modern" else ("--recipe", "modern", "--context", "0")
    made = method(f"{lever}/seed_{seed}", **changes)
    return Finished(lever=lever, seed=seed, words=words, method=made, dsc=dsc, rule="by-label. Text")
