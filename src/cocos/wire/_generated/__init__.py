"""Made by tools/generate_stubs.py."""
