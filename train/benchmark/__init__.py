"""What the fast paths are worth on the machine at hand."""
