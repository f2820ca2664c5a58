"""Run a command: its exit status, its errors in one line, and messages with the names of its options."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from dvtplan.cli import cache_folder, streams
from dvtplan.core import child_processes, process_group, threads
from dvtplan.core.child_processes import INTERRUPTED
from dvtplan.core.errors import DvtError

BROKEN_PIPE = 141
"""Exit status if the reader of the output has closed it, as in shells."""

COMMANDS = {
    "evaluate": "dvt_evaluate",
    "export_model": "dvt_model export",
    "import_dicom": "dvt_import",
    "plan_and_preprocess": "dvt_plan_and_preprocess",
    "predict": "dvt_predict",
    "predict_fold": "dvt_train --resume",
    "train_fold": "dvt_train",
    "write_report": "dvt_report",
}
"""Function of the library -> command."""
OPTIONS = frozenset({
    "augmentation", "averaging", "batch_size", "beta1", "burden", "by", "channels", "channels_last", "clip_norm",
    "compare", "compile", "context", "dataset", "device", "dice_weight", "epochs", "estimate_levels", "extra_formats",
    "findings", "focal_alpha", "focal_gamma", "folds", "folds_by", "gpus", "held_out", "input", "jobs", "keep_names",
    "key", "label_names", "learning_rate", "level", "level_sensitivity", "levels", "levels_table", "licence", "loss",
    "lr_drops", "lr_factor", "masks", "mirror", "model", "network", "networks", "norm_groups", "output", "overlays",
    "oversampling", "overwrite", "part", "patch", "patient_by", "patients", "precision", "prediction_values",
    "predictions", "preset", "quiet", "recipe", "reference", "region_rule", "replan", "resume", "root",
    "save_probabilities", "schedule", "seed", "segmentation", "series", "split", "stations", "summary", "target",
    "time_budget", "tolerance", "topk_share", "trust", "verbose", "verify_only", "warm_up", "weight_decay", "weights",
    "width", "workers",
})  # fmt: skip
"""Parameters of the library whose option has the same name, with hyphens."""
RENAMED = {
    "compiled": "compile",
    "processes": "gpus",
    "source": "input",
    "sources": "input",
    "time_budget_s": "time_budget",
}
"""Parameter of the library -> name of its option, where they differ."""
NEGATABLE = frozenset({"channels_last", "compile", "levels", "mirror"})
"""Options with a form ``--no-NAME``."""


def for_command_line(message: str) -> str:
    """Replace the parameters and stages in a message by options and commands.

    The library writes a parameter as `` `folds` `` or `` `device='cpu'` `` and a stage as the name of its function.
    They become ``--folds``, ``--device cpu`` and ``dvt_train``. Any other text in backticks stays as it is.
    """
    return re.sub(r"`([a-z]\w*)(?:=([^`\n]+))?`", _command_line_words, message)


def _command_line_words(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    if name in COMMANDS and value is None:
        return COMMANDS[name]
    name = RENAMED.get(name, name)
    if name not in OPTIONS:
        return match[0]
    option = name.replace("_", "-")
    if value in (None, "True"):
        return f"--{option}"
    if value in ("False", "None"):
        return f"--no-{option}" if name in NEGATABLE else f"no --{option}"
    return f"--{option} {_shell_words(value)}"


def _shell_words(value: str) -> str:
    """Return a Python literal as words of a shell command."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    values = literal if isinstance(literal, (list, tuple)) else [literal]
    return " ".join(shlex.quote(str(one)) for one in values)


def command(main: Callable[[list[str]], None]) -> Callable[[], None]:
    """Make a console script of a function that takes the command line's words.

    A DvtError, and a file without permission, end it with one line and status 1. Any other exception is a bug, and
    keeps its traceback. SIGTERM ends it like Ctrl-C, with its own status.
    """

    @functools.wraps(main)
    def script() -> None:
        from dvtplan.core import console

        streams.prepare()
        cache_folder.prepare()
        threads.prepare()
        console.set_translation(for_command_line)
        name = Path(sys.argv[0]).name
        if process_group.is_child_of_torchrun():
            child_processes.end_with_parent(os.getppid())
        with streams.output() as output:
            try:
                with child_processes.ends_in_order():
                    _run(main, name)
            except KeyboardInterrupt:
                status = child_processes.exit_status()
                word = "Interrupted" if status == INTERRUPTED else "Ended by a signal"
                console.MESSAGES.write(f"\n{word}. Finished results are kept.\n")
                sys.exit(status)
            except OSError:
                if output.failure is None:
                    raise
            finally:
                output.flush()
            if isinstance(output.failure, BrokenPipeError):  # `dvt_model info M | head`
                sys.exit(BROKEN_PIPE)
            if output.failure is not None:
                reason = output.failure.strerror
                sys.exit(_error_message(name, f"the output cannot be written ({reason}). Written files are complete."))

    return script


def _run(main: Callable[[list[str]], None], name: str) -> None:
    """Run a command; an error that the user can fix raises SystemExit."""
    from dvtplan.core import console

    try:
        main(sys.argv[1:])
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    except (DvtError, PermissionError) as error:
        if console.is_verbose():
            traceback.print_exception(error, file=console.MESSAGES)
        message = for_command_line(str(error))
        if isinstance(error, PermissionError):
            message = f"{error.filename}: no permission to read or write it. Fix the permissions."
        sys.exit(_error_message(name, message))


def _error_message(name: str, message: str) -> str:
    """Return the message of an error; under torchrun the first process prints all of it, the others its first line."""
    rank, world = 0, 1
    with contextlib.suppress(DvtError):  # the message may be about these variables
        rank, world = process_group.rank_and_world_size()
    if rank == 0:
        return f"{name}: {message}"
    return f"{name} (process {rank + 1} of {world}): {message.splitlines()[0]}"


@contextlib.contextmanager
def command_process_group() -> Iterator[process_group.ProcessGroup]:
    """Join the processes that torchrun started for this command; a single process does not need torch."""
    if not process_group.under_torchrun():
        yield process_group.ProcessGroup()
        return
    from dvtplan.training import distributed

    with distributed.process_group("cpu") as group:
        yield group
