"""PDF, HL7 v2 and CSV."""
