"""`forgeway demo`: a real model through the whole product, with the proof printed."""
