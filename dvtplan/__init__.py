"""dvtplan: plan, train, predict and evaluate leg vein thrombosis segmentation on MR."""

from __future__ import annotations

__version__ = "0.1.0"
