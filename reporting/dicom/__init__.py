"""Derived DICOM objects."""
