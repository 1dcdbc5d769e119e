"""Format-neutral content: measurements, narrative, identifiers."""
