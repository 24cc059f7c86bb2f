"""Recipes beyond the first candidates: what is tried, in which order, and when it ends."""
