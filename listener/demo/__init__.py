"""The demonstration: phantom smears, mock servers, a summary of the results."""
