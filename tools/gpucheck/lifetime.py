"""End a process together with its parent."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_the_parent(ancestor: int | None = None, every_s: float = 0.5) -> None:
    """End this process and its process group when its parent has ended. The process must lead that group.

    Args:
        ancestor: another process whose end also ends this one, if the parent may have ended before this call.
        every_s: seconds between two checks.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and (ancestor is None or _exists(ancestor)):
            time.sleep(every_s)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
