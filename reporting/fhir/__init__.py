"""FHIR R4 bundle."""
