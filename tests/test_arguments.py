"""Arguments and error messages that the scripts in tools/ share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from arguments import at_least, dataset_name, print_error

from dvtplan.core.errors import DvtError


def test_an_error_is_one_line_with_options_in_place_of_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("benchmark", DvtError("`device=cuda`: no GPU found."))
    assert capsys.readouterr().err == "benchmark: --device cuda: no GPU found.\n"


def test_an_error_of_the_system_names_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("/missing/folder/a.json").read_text()
    print_error("gpu_check", caught.value)
    assert capsys.readouterr().err == "gpu_check: /missing/folder/a.json: No such file or directory\n"


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_number_below_the_limit_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        at_least(1)(text)
    assert at_least(1)("12") == 12


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b"])
def test_a_name_that_is_not_a_folder_everywhere_is_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        dataset_name(name)
    assert dataset_name("DVT_1.2-a") == "DVT_1.2-a"
