"""What runs: steps, transitions, delivery, maintenance."""
