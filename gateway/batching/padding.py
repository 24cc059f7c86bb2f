"""A batch filled up to a number of rows that its variant runs faster than its own, where that was measured to be so.

The rows added are copies of the last one: they are valid for the model whatever it expects. Their outputs are cut off
before anybody is answered, and they are counted nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.batching.batch import Item
from gateway.running.slots import aligned
from gateway.running.wire import Done, Place
from gateway.tensors import row_ends


def padded_rows(rows: int, buckets: tuple[int, ...], nbytes: int, most_bytes: int) -> int:
    """The rows a batch of `rows` rows and `nbytes` bytes is filled up to; 0: it runs as it is.

    `buckets`: those to which filling up pays, ascending. `most_bytes`: what the inputs may take.
    """
    bucket = next((bucket for bucket in buckets if bucket >= rows), rows)
    return bucket if bucket > rows and nbytes * bucket <= most_bytes * rows else 0


def fill_padded(slot: memoryview, items: Sequence[Item], rows: int) -> tuple[list[Place], int]:
    """Like `batch.fill`, with the last row of the last item repeated up to `rows` rows."""
    real = sum(item.rows for item in items)
    places, offset = [], 0
    for nth, tensor in enumerate(items[0].inputs):
        start = offset
        for item in items:
            data = item.inputs[nth].data
            slot[offset : offset + len(data)] = data
            offset += len(data)
        last = items[-1].inputs[nth]
        begin = row_ends(last.datatype, last.data, items[-1].rows)[-2] if items[-1].rows > 1 else 0
        more = bytes(last.data[begin:]) * (rows - real)
        slot[offset : offset + len(more)] = more
        offset += len(more)
        places.append(Place(nth, tensor.datatype, (rows, *tensor.shape[1:]), start, offset - start))
        offset = aligned(offset)
    return places, offset


def without_padding(slot: memoryview, done: Done, rows: int, padded: int) -> Done | None:
    """The outcome with the first `rows` of its `padded` rows; None when an output has not as many rows as the batch.

    Raises WireError for texts that are not as many as the shape says. That tensors lie in the slot is known.
    """
    places = []
    for place in done.places:
        nth, datatype, shape, offset, nbytes = place
        if not shape or shape[0] != padded:
            return None
        end = row_ends(datatype, slot[offset : offset + nbytes], padded)[rows - 1]
        places.append(Place(nth, datatype, (rows, *shape[1:]), offset, end))
    return done._replace(places=tuple(places))
