"""Readers of file formats: from a file to an `EcgRecord`."""
