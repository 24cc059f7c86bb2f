"""HTTP/1.1 as it is served here: uvicorn, with what it must do otherwise."""
