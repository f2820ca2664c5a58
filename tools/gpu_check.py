"""Check everything that runs on a GPU, in one command that saves each result at once.

Each part runs in its own process with a time limit: limits of the machine, correctness, speed, and a whole study on
phantoms. docs/developer/gpu_check.md describes the parts and how to install packages on a machine without internet.

    python tools/gpu_check.py --out check                     eight minutes on a GPU
    python tools/gpu_check.py --out check --device cpu --scale tiny --minutes 2      a test run on a CPU
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1]))  # dvtplan need not be installed

try:
    from arguments import print_error
    from gpucheck import runner, study
    from gpucheck.parts import PARTS
    from gpucheck.record import NAME, Record
    from gpucheck.runner import Runner, Stopped
    from gpucheck.settings import COHORTS, LOG, Settings

    from dvtplan.core import files
    from dvtplan.core.errors import DvtError
    from dvtplan.models import devices
except ModuleNotFoundError as error:
    sys.exit(
        f"gpu_check: the package {error.name} is not installed. docs/developer/gpu_check.md describes the installation "
        "on a machine without internet."
    )

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STATUS = (
    "exit status: 0 nothing failed; 1 something failed or nothing was reached; 2 invalid option; 129 to 143 stopped"
)
SCRATCH = "gpu_check_scratch"
"""Name of the folder of phantoms and trainings; those of an earlier check are replaced."""
LARGEST_LOG = 10_000_000
"""Bytes."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status, as in ``STATUS``."""
    options = _parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _check(options, shlex.join(["python", "tools/gpu_check.py", *words]))
    except (DvtError, OSError) as error:
        print_error("gpu_check", error)
        return 1


def _check(options: argparse.Namespace, command: str) -> int:
    """Prepare the folders and run all parts."""
    device = devices.choose(options.device).device
    if not device.startswith(("cpu", "cuda")):
        raise DvtError(f"--device {options.device}: only CUDA GPUs and CPUs are supported. Use --device cpu.")
    scale = options.scale or ("tiny" if device == "cpu" else "paper")
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.exclusive_lock(options.out))
        fresh = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        scratch = (options.scratch or Path(fresh)).absolute() / SCRATCH
        scratch.mkdir(parents=True, exist_ok=True)
        _clear(options.out)
        settings = Settings(
            out=options.out.absolute(), scratch=scratch, device=device, scale=scale,
            until=time.time() + 60 * options.minutes,
        )  # fmt: skip
        return _run(settings, command, options)


def _run(settings: Settings, command: str, options: argparse.Namespace) -> int:
    """Run the parts and print the table."""
    head = {
        "command": command,
        "device": settings.device,
        "scale": settings.scale,
        "minutes": options.minutes,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    names = {part: [check.name for check in checks] for part, checks in PARTS.items() if part in options.parts}
    stages = [[part for part in stage if part in options.parts] for stage in runner.STAGES]
    record = Record(settings.out / NAME, head, names)
    status = 0
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        Runner(settings, record, _print).run(stages)
    except Stopped as stopped:
        status = 128 + int(stopped.args[0])
    runner.shorten_log(settings.out / LOG, LARGEST_LOG)
    text = record.to_text()
    with (settings.out / LOG).open("a", encoding="utf-8") as log:
        log.write(f"\n{text}\n")
    _print(f"\n{text}")
    return status or int(record.failed or record.empty)


def _print(text: str) -> None:
    """Print a line; a closed pipe does not end the check."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


def _stop(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # the results are being written; ignore further signals
    raise Stopped(number)


def _clear(out: Path) -> None:
    """Remove the results of an earlier check from a folder.

    Raises:
        DvtError: if the folder contains other files.
    """
    ours = {out / NAME, out / LOG, *study.result_files(out)}
    others = sorted(path.name for path in out.iterdir() if path not in ours and not path.name.startswith("."))
    if others:
        raise DvtError(f"{out}: contains {others[0]}, which is not a result of this check. Use a new folder as --out.")
    for path in ours:
        path.unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog=f"example: python tools/gpu_check.py --out check --minutes 8; {STATUS}",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the results (8 files)")
    parser.add_argument("--minutes", type=_minutes, default=8.0, help="total time (default: 8)")
    parser.add_argument(
        "--scale", choices=tuple(COHORTS), help="scale of the phantoms; default: paper on a GPU, tiny on a CPU"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), metavar="PART",
        help=f"run only these parts: {', '.join(PARTS)}",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep phantoms and trainings in this folder")
    return parser


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.1 <= minutes <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes from 0.1 to 600")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
