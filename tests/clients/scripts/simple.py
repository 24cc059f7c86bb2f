"""What every kind of tritonclient asks the model `simple`, and what must come back: the sum and the difference."""

import asyncio

import numpy as np


def given(library, numbers, binary=None):
    """Both inputs. `binary`: how HTTP carries them; gRPC has one way."""
    options = {} if binary is None else {"binary_data": binary}
    return [
        library.InferInput(name, list(value.shape), "INT32").set_data_from_numpy(value, **options)
        for name, value in zip(("INPUT0", "INPUT1"), numbers, strict=True)
    ]


def check(result, numbers):
    left, right = numbers
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), left + right)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), left - right)


def runner(library, address):
    """Runs `walk(client)` to its end, with an asynchronous client of its own."""

    async def walked(walk):
        async with library.InferenceServerClient(address) as client:
            await walk(client)

    return lambda walk: asyncio.run(walked(walk))
