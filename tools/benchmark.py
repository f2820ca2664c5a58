"""Measure the program's own time against the machine's limit and against peers; ratios within one run.

Each figure is the median of several rounds in which what is compared takes turns. Let nothing else run beside it.

    python tools/benchmark.py                              everything that this machine has
    python tools/benchmark.py --only train forward --json benchmarks/laptop.json
    python tools/benchmark.py --nnunet ~/nnunet_env        nnU-Net beside ours; installed there once
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from arguments import at_least
from bench import limits, machine, nnunet, prediction, rows, stages, startup, steps, training
from bench.inputs import Bench
from bench.rows import Row

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
    "parallel": (training.parallel,),
    "scale": (stages.growth, prediction.memory),
}
"""What may be measured, in this order."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0], epilog="See the head of this file.")
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), default=tuple(SECTIONS), help="sections")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="each figure is their median")
    parser.add_argument("--tiny", action="store_true", help="smallest inputs: to see that it runs, not for figures")
    parser.add_argument("--nnunet", type=Path, metavar="DIR", help="an environment with nnU-Net, made if need be")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where phantoms lie, kept; default: a new one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "tools/benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        with tempfile.TemporaryDirectory() as fresh:
            found = measure(options, options.scratch or Path(fresh))
    except (DvtError, RuntimeError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    device = devices.choose(options.device).device
    told = machine.describe(device)
    print(f"\n{told['processor']}, {told['cores']} cores ({told['instructions']}), {told['device']}, {told['date']}\n")
    print(rows.to_text(found))
    if options.json is not None:
        rows.save(found, told, command, options.json)
        print(f"\n{options.json}")
    return 0


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """The rows of the sections that were asked for."""
    bench = Bench(
        scratch=scratch,
        device=devices.choose(options.device).device,
        rounds=options.rounds,
        tiny=options.tiny,
        nnunet=None if options.nnunet is None else nnunet.ready(options.nnunet),
    )
    found: list[Row] = []
    for name, questions in SECTIONS.items():
        if name in options.only:
            for question in questions:
                print(f"\n== {name}: {question.__doc__.splitlines()[0]}", file=sys.stderr)  # type: ignore[union-attr]
                found.extend(question(bench))
    return found


if __name__ == "__main__":
    sys.exit(main())
