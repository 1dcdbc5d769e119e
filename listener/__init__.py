"""The outside world and the running process."""
