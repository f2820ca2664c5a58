"""DICOM studies in, segmentation objects out."""
