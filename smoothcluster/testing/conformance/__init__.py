"""testing/conformance."""
