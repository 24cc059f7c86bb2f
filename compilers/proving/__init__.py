"""Proof: what a variant answers against what the reference answers, and whether that is enough."""
