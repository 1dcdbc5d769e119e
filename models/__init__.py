"""The network and everything about it: file, hash, labels, calibration, training."""
