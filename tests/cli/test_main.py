"""Commands by ``python -m dvtplan.cli``."""

from __future__ import annotations

from helpers import processes


def test_without_a_command_the_commands_are_listed() -> None:
    for module in ("dvtplan", "dvtplan.cli"):
        done = processes.python(["-m", module])
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.startswith("usage: dvt ") and "dvt_plan_and_preprocess" in done.stdout


def test_a_command_is_named_as_function_or_as_script() -> None:
    for word in ("import_dicom", "dvt_import"):
        done = processes.python(["-m", "dvtplan", word, "--help"])
        assert done.returncode == 0 and done.stdout.startswith("usage: dvt_import ")


def test_an_unknown_command_is_one_line() -> None:
    done = processes.python(["-m", "dvtplan", "trian"])
    assert done.returncode == 2 and done.stdout == ""
    assert "'trian'" in done.stderr and "plan_and_preprocess" in done.stderr and done.stderr.count("\n") == 1
