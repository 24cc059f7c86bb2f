"""Requests that wait become batches, and batches become answers."""
