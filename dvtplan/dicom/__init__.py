"""Read DICOM studies, write DICOM segmentation objects, and import studies into a data set."""
