"""The networks and everything about them: file, hash, labels, calibration, training."""

import os

# Before any import of onnxruntime: without it the package (1.31 does) looks up a telemetry host
# and writes a device id under the user's cache folder.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
