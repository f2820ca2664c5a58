"""dvtplan: plan, train, predict and evaluate leg vein thrombosis segmentation on MR."""

__version__ = "0.1.0"
