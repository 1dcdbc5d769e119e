"""DICOM dataset to RGB."""
