"""Messages of the library in the words of the command line, and how a command ends."""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import start

from dvtplan import cli
from dvtplan.cli.runner import COMMANDS, NEGATABLE, OPTIONS, RENAMED, for_command_line
from dvtplan.core import console, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.training import distributed

PACKAGE = Path(__file__).parents[2] / "dvtplan"
LIBRARY = [path for path in sorted(PACKAGE.rglob("*.py")) if "cli" not in path.relative_to(PACKAGE).parts]
NOT_A_MESSAGE = {
    ("rendering/html_page.py", "STYLE"),
    ("reporting/model_export.py", "NOTICE"),
    ("inference/inputs.py", "dvt_predict_"),
}
"""Module and constant, or string, that no user of the library reads as a message: CSS variables, the text in a model
archive for its reader, the name of a temporary folder."""


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Set `overwrite=True` to replace it.", "Set --overwrite to replace it."),
        ("Use fewer `folds`.", "Use fewer --folds."),
        ("Train with `resume=False`.", "Train with no --resume."),
        ("Use `compile=False` or `channels_last=False`.", "Use --no-compile or --no-channels-last."),
        ("Use `level=None`.", "Use no --level."),
        ("Use `folds=[0, 1]`.", "Use --folds 0 1."),
        ("Use `folds=(2,)`.", "Use --folds 2."),
        ("Use `folds=[]`.", "Use --folds ."),
        ("Use `epochs=60`.", "Use --epochs 60."),
        ("Use `device='cpu'`.", "Use --device cpu."),
        ('Use `device="cuda:0"`.', "Use --device cuda:0."),
        ("Use `series=['cor vein', 'art']`.", "Use --series 'cor vein' art."),
        ('Use `key="it\'s.csv"`.', "Use --key 'it'\"'\"'s.csv'."),
        ("Use `batch_size`.", "Use --batch-size."),
        ("Give `sources`, or `source=a`.", "Give --input, or --input a."),
        ("Use `compiled=False` or fewer `processes`.", "Use --no-compile or fewer --gpus."),
        ("Use `model=results/DVT/gn_unet`.", "Use --model results/DVT/gn_unet."),
        ("Run `plan_and_preprocess` first.", "Run dvt_plan_and_preprocess first."),
        ("Run `train_fold` with `resume=True`.", "Run dvt_train with --resume."),
        ("Run `export_model` again.", "Run dvt_model export again."),
        ("Predict it with `predict_fold`.", "Predict it with dvt_train --resume."),
    ],
)
def test_parameters_become_options_and_stages_become_commands(message: str, expected: str) -> None:
    assert for_command_line(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        "The field `file_ending` is missing.",
        "The setting `unknown=True` has no option.",
        "Run `pip install 'dvtplan[dicom]'`.",
        "Read `dataset.json` and `Folds`.",
        "A single ` and folds=[0] without backticks.",
        "`folds",
        "An empty pair `` and `folds=`.",
        "`predict=True` is not a stage.",
    ],
)
def test_other_text_stays_as_it_is(message: str) -> None:
    assert for_command_line(message) == message


def test_every_line_of_a_message_is_translated() -> None:
    message = "2 scans failed.\na: use `series`.\nb: run `predict` with `overwrite=True`; not `folds=\n`."
    assert (
        for_command_line(message)
        == "2 scans failed.\na: use --series.\nb: run dvt_predict with --overwrite; not `folds=\n`."
    )


def test_a_translated_message_is_not_changed_again() -> None:
    once = for_command_line("Run `train_fold` with `folds=[0, 1]` or `device='cpu'`.")
    assert for_command_line(once) == once


@pytest.fixture
def translation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate messages in this process, as a command does."""
    monkeypatch.setattr(console, "_translation", [for_command_line])


@pytest.mark.usefixtures("translation")
def test_worker_processes_translate_their_messages_too(tmp_path: Path) -> None:
    messages = ["Use `folds`.", "Use `jobs=1`."]
    assert worker_pool.over_cases(console.translated, messages, ["a", "b"], title="Test", jobs=2) == [
        "Use --folds.",
        "Use --jobs 1.",
    ]
    log = tmp_path / "log.txt"
    distributed.launch(console.info, 2, messages[0], log)
    assert log.read_text().count("Use --folds.\n") == 2


# --- options --------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def parsers(monkeypatch: pytest.MonkeyPatch) -> list[argparse.ArgumentParser]:
    """The parser of every command, with those of its actions."""
    found: list[argparse.ArgumentParser] = []

    def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise Stopped

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", ["dvt"])
    monkeypatch.setattr(console, "_translation", [])
    for name in cli.__all__:
        if name != "INTERRUPTED":
            with pytest.raises(Stopped):
                getattr(cli, name)()
    for parser in list(found):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found.extend(action.choices.values())
    return found


def test_every_option_of_every_command_is_known_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [action for parser in parsers(monkeypatch) for action in parser._actions if action.option_strings]
    actions = [action for action in listed if action.help != argparse.SUPPRESS]  # without earlier names
    names = {action.dest for action in actions} - {"help", "version"}
    assert names == OPTIONS
    assert set(RENAMED.values()) <= OPTIONS and not set(RENAMED) & OPTIONS
    for action in actions:
        if action.dest in OPTIONS:
            assert f"--{action.dest.replace('_', '-')}" in action.option_strings
            assert isinstance(action, argparse.BooleanOptionalAction) == (action.dest in NEGATABLE)


def test_every_command_has_the_output_option_as_o(monkeypatch: pytest.MonkeyPatch) -> None:
    for parser in parsers(monkeypatch):
        assert "--out" not in parser._option_string_actions
        for action in parser._actions:
            if "--output" in action.option_strings:
                assert "-o" in action.option_strings


# --- the library ----------------------------------------------------------------------------------


def strings(path: Path) -> list[tuple[int, str]]:
    """Line and text of every string of a module, f-strings in parts, without docstrings and exceptions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = path.relative_to(PACKAGE).as_posix()
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))  # docstrings of modules, functions and fields
        targets = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        if any((module, name) in NOT_A_MESSAGE for name in targets):
            skipped |= {id(part) for part in ast.walk(node)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
        and (module, node.value) not in NOT_A_MESSAGE
    ]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_library_names_parameters_and_stages_and_no_option_or_command(path: Path) -> None:
    found = [
        f"line {line}: {match[0]} in {text!r}"
        for line, text in strings(path)
        for match in re.finditer(r"(?<![\w-])--[a-z][\w-]*|(?<![\w-])-[io]\b(?!-)|\bdvt_[a-z_]+", text)
    ]
    assert found == []


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_name_in_backticks_has_an_option_or_a_command(path: Path) -> None:
    """Otherwise the backticks would reach the user of a command."""
    known = OPTIONS | set(RENAMED) | set(COMMANDS)
    found = [
        f"line {line}: {match[0]} in {text!r}"
        for line, text in strings(path)
        for match in re.finditer(r"`(\w+)[`=]", text)
        if match[1] not in known
    ]
    assert found == []


# --- the end of a command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("import", ["-i", "none", "-o", "out", "--channels", "T1"]),
        ("plan_and_preprocess", []),
        ("train", ["0"]),
        ("evaluate", []),
        ("predict", ["-i", "none.nii.gz", "-o", "out", "--model", "none"]),
        ("model", ["export", "none", "a.zip"]),
        ("model", ["info", "none.zip"]),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_line(
    call: Callable[..., Any],
    command: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = call(command, *words)
    assert isinstance(line, str) and line.startswith(f"dvt_{command}: ") and "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_the_error_is_printed_to_stderr_with_status_1_and_without_a_traceback(tmp_path: Path) -> None:
    process = start("evaluate", "--root", tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1 and out == ""
    assert err.startswith("dvt_evaluate: ") and "no data set found" in err and err.count("\n") == 1


@pytest.mark.parametrize(("rank", "world"), [("x", "2"), ("-1", "1"), ("", ""), ("3", "2")])
def test_an_environment_without_a_rank_is_one_line(tmp_path: Path, rank: str, world: str) -> None:
    """The message of an error names the rank under torchrun, and this error is about the rank."""
    words = ("-i", tmp_path, "-o", tmp_path / "out", "--model", tmp_path)
    process = start("predict", *words, RANK=rank, WORLD_SIZE=world)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert len(err.splitlines()) == 1 and f"RANK={rank}" in err and "torchrun" in err


def test_a_bug_keeps_its_traceback(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", fault)
    with pytest.raises(RuntimeError, match="a bug"):
        call("plan_and_preprocess")


def test_a_file_without_permission_is_one_line(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "results/DVT")

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", forbid)
    line = call("plan_and_preprocess")
    assert line.startswith("dvt_plan_and_preprocess: results/DVT: no permission") and "\n" not in line


def test_an_interrupt_ends_quietly_with_status_130(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", interrupt)
    assert call("plan_and_preprocess") == cli.INTERRUPTED
    assert "kept" in capsys.readouterr().err


def test_a_dvt_error_of_several_lines_names_the_command_once(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DvtError("first\nsecond")

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", refuse)
    assert call("plan_and_preprocess") == "dvt_plan_and_preprocess: first\nsecond"


def test_a_closed_output_is_not_an_error(trained_once: Workspace) -> None:
    """As in ``dvt_model info M | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "dvtplan.cli", "model", "info", str(trained_once.results("gn_unet"))]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == ""
