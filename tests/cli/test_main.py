"""Commands by ``python -m dvtplan.cli``."""

from __future__ import annotations

from helpers import processes


def test_a_command_without_console_script_is_explained() -> None:
    for words, status in (([], 1), (["trian"], 1), (["--help"], 0)):
        done = processes.python(["-m", "dvtplan.cli", *words])
        assert done.returncode == status
        shown = done.stderr if status else done.stdout
        assert shown.startswith("usage: ") and "plan_and_preprocess" in shown and shown.count("\n") == 1
