"""Time: a variant against the reference, in turns, and the plan that follows from it."""
