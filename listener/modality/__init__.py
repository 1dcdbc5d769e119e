"""Acting as an imaging device: photographs to DICOM, C-STORE SCU."""
