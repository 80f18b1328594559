"""Protocols by name, settings and tasks of the evaluation of frozen and fine-tuned encoders."""
