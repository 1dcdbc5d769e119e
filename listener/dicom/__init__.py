"""DICOM Storage SCP (PS3.7, PS3.8)."""
