"""The console: pages for people who upload, look, find, follow and audit."""
