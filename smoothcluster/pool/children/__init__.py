"""pool/children."""
