"""Finding and outlining cells."""
