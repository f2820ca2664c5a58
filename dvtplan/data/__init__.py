"""Raw data sets, paths, folds, the log of predictions."""
