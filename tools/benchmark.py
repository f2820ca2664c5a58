"""Measure the run time of dvtplan against the limits of the machine and against nnU-Net.

Each value is the median of several rounds, in which the compared tasks take turns. Run nothing else meanwhile.

    python tools/benchmark.py                              all sections that this machine supports
    python tools/benchmark.py --only train forward --json benchmarks/laptop.json
    python tools/benchmark.py --nnunet ~/nnunet_env        compare with nnU-Net, installed there on first use
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from arguments import at_least, print_error
from bench import busy, earlier, limits, machine, nnunet, prediction, results, stages, startup, steps, training
from bench.inputs import Bench
from bench.results import Row

from dvtplan.core.errors import DvtError
from dvtplan.models import devices

SECTIONS: dict[str, tuple[Callable[[Bench], Iterator[Row]], ...]] = {
    "start": (startup.start,),
    "preprocess": (stages.preprocess,),
    "evaluate": (stages.evaluate,),
    "limits": (limits.limits,),
    "steps": (steps.steps, steps.other_ways),
    "train": (training.train,),
    "auto": (training.auto,),
    "eager": (training.eager,),
    "synchronisations": (training.synchronisations,),
    "forward": (prediction.forward, prediction.forward_rate),
    "predict": (prediction.predict,),
    "busy": (busy.busy,),
    "earlier": (earlier.earlier,),
    "parallel": (training.parallel,),
    "scale": (stages.growth, prediction.memory),
}
"""Section -> its measurements, in the order of the output."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0], epilog="Examples: see the file.")
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), default=tuple(SECTIONS), help="sections")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="each value is the median of the rounds")
    parser.add_argument("--tiny", action="store_true", help="use the smallest inputs: only a test that everything runs")
    parser.add_argument("--nnunet", type=Path, metavar="DIR", help="environment with nnU-Net, made if missing")
    parser.add_argument("--earlier", type=Path, metavar="DIR", help="source tree of an earlier commit, to compare with")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep phantoms there; default: a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file")
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "tools/benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        with tempfile.TemporaryDirectory() as fresh:
            found = measure(options, options.scratch or Path(fresh))
    except (DvtError, RuntimeError, OSError) as error:
        print_error("benchmark", error)
        return 1
    device = devices.choose(options.device).device
    here = machine.describe(device)
    print(f"\n{here['processor']}, {here['cores']} cores ({here['instructions']}), {here['device']}, {here['date']}\n")
    print(results.to_text(found))
    if options.json is not None:
        results.save(found, here, command, options.json)
        print(f"\n{options.json}")
    return 0


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """Return the rows of the chosen sections."""
    bench = Bench(
        scratch=scratch,
        device=devices.choose(options.device).device,
        rounds=options.rounds,
        tiny=options.tiny,
        earlier=options.earlier,
        nnunet=None if options.nnunet is None else nnunet.ready(options.nnunet),
    )
    found: list[Row] = []
    for name, measurements in SECTIONS.items():
        if name in options.only:
            for measurement in measurements:
                title = (measurement.__doc__ or "").partition("\n")[0]
                print(f"\n== {name}: {title}", file=sys.stderr)
                found.extend(measurement(bench))
    return found


if __name__ == "__main__":
    sys.exit(main())
