"""Run ``python -m dvtplan train ...`` as ``dvt_train ...``."""

from __future__ import annotations

from dvtplan.cli.__main__ import main

if __name__ == "__main__":
    main()
