"""One file per destination type."""
