"""Side by side with the bare session: `python -m benchmarks`. How and what: README.md beside this file."""
