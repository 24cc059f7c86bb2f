"""The plain service that people write first: FastAPI, one route, the session called where the request is read."""

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from onnx_models import NAMES, PORT, OnnxModel

MODELS = {name: OnnxModel(name) for name in NAMES}
app = FastAPI()


@app.post("/models/{name}")
async def infer(name: str, request: Request) -> Response:
    if name not in MODELS:
        raise HTTPException(404)
    # On the loop itself: quicker here than through the thread pool, for small models and for large ones.
    (row,) = MODELS[name].run_packed([await request.body()])
    return Response(row, media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, access_log=False, log_level="warning")
