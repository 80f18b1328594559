"""Explanations of a model on a recording, reconstructions, and the picture of a published model."""
