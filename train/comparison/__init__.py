"""Pretraining methods on equal terms: runs, scores, report."""
