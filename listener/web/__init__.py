"""HTTP: STOW-RS, health, metrics, console."""
