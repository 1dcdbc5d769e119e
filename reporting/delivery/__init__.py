"""One Protocol, one file a way: DICOM, STOW-RS, FHIR, HL7, folder."""
