"""Runners: the processes that hold sessions, from both ends, and the hop between."""
