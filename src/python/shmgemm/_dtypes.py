"""What a record can say: the element types a device multiplies, and its number."""

from __future__ import annotations

from typing import Final

from shmgemm.errors import Unsupported

FLOAT32: Final = 1
FLOAT16: Final = 2
BFLOAT16: Final = 3
INT8: Final = 4
INT32: Final = 5

CODES: Final = {
    "float32": FLOAT32,
    "float16": FLOAT16,
    "bfloat16": BFLOAT16,
    "int8": INT8,
    "int32": INT32,
}
NAMES: Final = {code: name for name, code in CODES.items()}
ITEM_BYTES: Final = {FLOAT32: 4, FLOAT16: 2, BFLOAT16: 2, INT8: 1, INT32: 4}

FLOATS: Final = frozenset({FLOAT32, FLOAT16, BFLOAT16})
INPUTS: Final = FLOATS | {INT8}
INPUT_NAMES: Final = "float32, float16, bfloat16 or int8"

MAX_DEVICES: Final = 255  # of one session


def output_code(input_code: int, wanted: int | None) -> int | None:
    """The output type of a product; None where devices cannot make `wanted` of `input_code`."""
    if input_code == INT8:
        return INT32 if wanted in (None, INT32) else None
    if wanted is None:
        return input_code
    return wanted if wanted in FLOATS else None


def check_sim_device(sim_device: object) -> None:
    """Unsupported for what no device can be numbered; whether it is there the session says."""
    if not isinstance(sim_device, int) or not 0 <= sim_device < MAX_DEVICES:
        raise Unsupported(
            f"got sim_device {sim_device!r}; expected a device number from 0 to {MAX_DEVICES - 1}"
        )
