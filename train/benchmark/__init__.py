"""Measurements of the fast paths on the machine at hand."""
