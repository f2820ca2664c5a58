"""The command dvt lists every command."""

from __future__ import annotations

import configparser
from pathlib import Path

from dvtplan.cli.overview import COMMANDS as LISTED_COMMANDS


def test_the_overview_names_every_console_script() -> None:
    scripts = configparser.ConfigParser()
    scripts.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    lines = scripts["options.entry_points"]["console_scripts"].split("\n")
    names = {line.partition(" = ")[0] for line in lines if line}
    assert names == {"dvt", *LISTED_COMMANDS}
