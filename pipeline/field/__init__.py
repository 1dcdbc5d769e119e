"""Field-level measurement: optical density, quality, masks."""
