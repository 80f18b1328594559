"""Labelled recordings as tasks: splits, targets, and copies of the same recording."""
