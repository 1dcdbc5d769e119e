"""What a site may change, and the one table of coded concepts."""
