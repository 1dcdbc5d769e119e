"""Prepare, train, calibrate, export, quantise and evaluate the network; one command each."""
