"""Bodies to tensors and back: V2 (JSON with the binary extension) and V1."""
