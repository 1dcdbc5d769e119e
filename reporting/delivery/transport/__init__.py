"""Sockets, TLS, HTTP, OAuth, DICOM associations."""
