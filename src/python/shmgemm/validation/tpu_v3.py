"""The preset `tpu_v3` against measured GEMMs, beside five published simulators.

Measurements and the simulators' figures are those of the PyTorchSim artifact (MICRO 2025,
`experiments/artifact/baseline_cycle.csv`): one core, float32, operands in HBM. PyTorchSim's own
errors are read off its figure. One parameter, `dispatch`, is calibrated; a row's leave-one-out
error is that with `dispatch` fitted to the other rows alone.

The same artifact measures whole encoder blocks and the attention in them. What our GEMMs and the
measured attention leave of a block is its elementwise work, which is not simulated: no error, but
it must be there and small.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _core, hardware
from . import Options

PRESET = "tpu_v3"
CALIBRATED = "dispatch"
GOAL_PERCENT = 7.0  # of the mean absolute leave-one-out error
LARGEST_REST_PERCENT = 15.0  # of an encoder block
_TOKENS = 512


@dataclass(frozen=True)
class Measured:
    """A square GEMM: cycles on the machine, and what others predict."""

    size: int
    cycles: int
    simulators: dict[str, int]
    pytorchsim_error: float  # percent


MEASURED = (
    Measured(
        256, 3101, {"SCALE-Sim v3": 1020, "MAESTRO": 522, "Timeloop": 512, "mNPUsim": 2426}, -2
    ),
    Measured(
        512, 9490, {"SCALE-Sim v3": 6128, "MAESTRO": 4162, "Timeloop": 4096, "mNPUsim": 8584}, 16
    ),
    Measured(
        1024,
        47099,
        {"SCALE-Sim v3": 40896, "MAESTRO": 33282, "Timeloop": 32768, "mNPUsim": 32625},
        1,
    ),
    Measured(
        2048,
        317435,
        {"SCALE-Sim v3": 294656, "MAESTRO": 266242, "Timeloop": 262144, "mNPUsim": 3046069},
        -10,
    ),
)


@dataclass(frozen=True)
class Block:
    """A transformer encoder block on 512 tokens: cycles of all of it, and of its attention."""

    name: str
    hidden: int
    cycles: int
    attention_cycles: int


BLOCKS = (
    Block("bert_base", 768, 305077, 110093),
    Block("bert_large", 1024, 445317, 145425),
    Block("bert_xlarge", 2048, 1283925, 288250),
)


def run(options: Options) -> dict[str, Any]:
    """Every row with our error, as the preset stands and leave-one-out; errors in percent."""
    options.progress("TPUv3: four measured GEMMs, three encoder blocks")
    device = hardware.load(PRESET)
    rows = [_row(row) for row in MEASURED]
    specified = device.parameters.keys() - {*device.calibrated, *device.assumed, "model"}
    return {
        "rows": rows,
        "mae": _mean(row["error"] for row in rows),
        "mae_leave_one_out": _mean(row["leave_one_out"]["error"] for row in rows),
        "calibrated": list(device.calibrated),
        "assumed": list(device.assumed),
        "specified": sorted(specified),
        "simulators": _simulators(),
        "encoder_blocks": [_block(block) for block in BLOCKS],
    }


def passed(result: dict[str, Any]) -> bool:
    rest = [block["rest"] for block in result["encoder_blocks"]]
    return bool(
        result["mae_leave_one_out"] <= GOAL_PERCENT
        and len(result["calibrated"]) <= 1
        and min(rest) >= 0
        and max(rest) <= LARGEST_REST_PERCENT
    )


def table(result: dict[str, Any]) -> Iterable[str]:
    """Errors of each row, ours first; then where the parameters come from."""
    others = [*result["simulators"]]
    yield (
        f"TPUv3, one core: measured GEMMs, and errors in % (preset {PRESET}, model"
        f" {hardware.load(PRESET).model})"
    )
    yield f"{'GEMM':<7} {'measured':>8} {'cycles':>8} {'ours':>6} {'l.o.o.':>6}" + "".join(
        f" {name:>12}" for name in others
    )
    for row in result["rows"]:
        yield (
            f"{row['m']}³".ljust(7) + f" {row['measured']:>8} {row['cycles']:>8}"
            f" {row['error']:>+6.1f} {row['leave_one_out']['error']:>+6.1f}"
            + "".join(f" {row['errors'][name]:>+12.1f}" for name in others)
        )
    yield (
        f"{'mean absolute error':<24} {result['mae']:>7.1f} {result['mae_leave_one_out']:>6.1f}"
        + "".join(f" {result['simulators'][name]:>12.1f}" for name in others)
    )
    yield (
        f"l.o.o.: {CALIBRATED} fitted to the other rows. Calibrated: {_list(result['calibrated'])}."
        f" Assumed: {_list(result['assumed'])}."
    )
    yield f"From specifications: {_list(result['specified'])}."
    for block in result["encoder_blocks"]:
        yield (
            f"{block['name']}, {_TOKENS} tokens: measured {block['measured']}; our GEMMs"
            f" {block['cycles']} + measured attention {block['attention']} leave"
            f" {block['rest']:.1f} % for elementwise work"
        )


def calibrate(rows: Sequence[Measured]) -> int:
    """The value of `dispatch` with the least mean absolute error on `rows`.

    The error is convex in it and has its corners where one row is exact.
    """
    exact = [max(0, row.cycles - _cycles(row.size, row.size, row.size, 0)) for row in rows]
    return min(exact, key=lambda value: _mean(_error(row, value) for row in rows))


def _row(row: Measured) -> dict[str, Any]:
    fitted = calibrate([other for other in MEASURED if other is not row])
    cycles = _cycles(row.size, row.size, row.size)
    return {
        "m": row.size,
        "n": row.size,
        "k": row.size,
        "measured": row.cycles,
        "cycles": cycles,
        "error": _percent(cycles, row.cycles),
        "leave_one_out": {
            CALIBRATED: fitted,
            "cycles": _cycles(row.size, row.size, row.size, fitted),
            "error": _error(row, fitted),
        },
        "errors": _errors(row),
    }


def _errors(row: Measured) -> dict[str, float]:
    found = {name: _percent(cycles, row.cycles) for name, cycles in row.simulators.items()}
    return {**found, "PyTorchSim": row.pytorchsim_error}


def _simulators() -> dict[str, float]:
    return {name: _mean(_errors(row)[name] for row in MEASURED) for name in _errors(MEASURED[0])}


def _block(block: Block) -> dict[str, Any]:
    """Projections of Q, K, V and the output, and the two layers of the feed-forward part."""
    hidden = block.hidden
    gemms = (
        4 * _cycles(_TOKENS, hidden, hidden)
        + _cycles(_TOKENS, 4 * hidden, hidden)
        + _cycles(_TOKENS, hidden, 4 * hidden)
    )
    rest = block.cycles - block.attention_cycles - gemms
    return {
        "name": block.name,
        "measured": block.cycles,
        "attention": block.attention_cycles,
        "cycles": gemms,
        "rest": 100 * rest / block.cycles,
    }


def _cycles(m: int, n: int, k: int, dispatch: int | None = None) -> int:
    overrides = None if dispatch is None else {CALIBRATED: dispatch}
    parameters = hardware.load(PRESET, overrides).parameters
    return int(_core.simulate_gemm(parameters, m, n, k)["cycles"])


def _error(row: Measured, dispatch: int) -> float:
    return _percent(_cycles(row.size, row.size, row.size, dispatch), row.cycles)


def _percent(cycles: int, measured: int) -> float:
    return 100 * (cycles / measured - 1)


def _mean(errors: Iterable[float]) -> float:
    return statistics.fmean(map(abs, errors))


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
