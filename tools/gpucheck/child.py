"""Run the checks of one part and report each event: ``python -m gpucheck.child PART SETTINGS PIPE``.

An event is one line of JSON in the pipe. The output of a check goes to the log. After a failed check the next one
still runs. A check that needs more than the remaining time is reported as not reached.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from bench import results

from gpucheck.checks import FAILED, MISSED, NO_GPU, NOT_REACHED, PASSED, Check, OutOfTime
from gpucheck.lifetime import end_with_the_parent
from gpucheck.settings import Settings

TRACEBACK_LINES = 12
"""Lines of a traceback in the record; the log has all lines."""

Report = Callable[[Mapping[str, Any]], None]


def main(part: str, settings_json: str, pipe: str) -> None:
    """Run one part."""
    end_with_the_parent()
    from gpucheck.parts import PARTS

    settings = Settings.from_json(settings_json)
    with os.fdopen(int(pipe), "w", encoding="utf-8") as events:

        def report(event: Mapping[str, Any]) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        if part == "machine":
            report({"event": "machine", "machine": _described(settings.device)})
        for check in PARTS[part]:
            run_check(check, settings, report)
        report({"event": "done"})


def _described(device: str) -> dict[str, object]:
    """Describe the machine, or return the error; its limits are measured in any case."""
    from bench import machine

    try:
        return machine.describe(device)
    except Exception as error:
        traceback.print_exc()
        return {"error": repr(error)}


def run_check(check: Check, settings: Settings, report: Report) -> None:
    """Run one check and report its values and its end."""
    print(f"--- {check.name}", file=sys.stderr, flush=True)
    report({"event": "begin", "check": check.name})
    begin, state, error = time.monotonic(), PASSED, ""
    try:
        if check.needs_gpu and not settings.on_gpu:
            state = NO_GPU
        else:
            for row in check.measure(settings):
                report({"event": "row", "check": check.name, "row": results.to_json(row)})
                if row.verdict == "missed":
                    state = FAILED if check.must_hold else MISSED
    except OutOfTime as reason:
        state, error = NOT_REACHED, str(reason)
    except Exception:  # any error of an unknown machine; the next check still runs
        traceback.print_exc()
        state, error = FAILED, "\n".join(traceback.format_exc().strip().splitlines()[-TRACEBACK_LINES:])
    seconds = round(time.monotonic() - begin, 2)
    report({"event": "end", "check": check.name, "state": state, "error": error, "seconds": seconds})


if __name__ == "__main__":
    main(*sys.argv[1:])
