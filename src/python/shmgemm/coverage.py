"""How much of a model's matrix work ran on the device, in multiply-accumulates (MACs).

What ran on the device is known from the records. What ran on the CPU is seen by a TorchDispatchMode
(every aten product below autograd, backward included) and by hooks that say which of those products
belong to a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ._fallback import LINEAR, Counters

if TYPE_CHECKING:
    from ._mac_counter import MacCounter
    from .profiling import Record

NO_COUNTERS = Counters()


@dataclass(frozen=True)
class Coverage:
    """Two shares, 0..1, or None where there was nothing to divide by.

    `linear`: of the MACs of the linear layers' forward passes, how many were simulated. A linear
    layer is `nn.Linear` and its subclasses, transformers' `Conv1D`, and the projections inside
    `nn.MultiheadAttention`; layers that stayed on the CPU, by choice or by fallback, count in the
    denominator. `matrix`: of all matrix MACs of the block (attention's products, convolutions,
    backward passes, bare `torch.mm`), how many were simulated. CPU products are counted in the
    thread that opened the profile; device products in every thread. Without torch only device
    products are known, and `matrix` is 1. Where torch was first imported inside the block both are
    None.

    `kept_back_*`: products a threshold of `offload_` left on the CPU. `fallback_*`: products the
    CPU computed because the device could not. Both are part of the denominators.
    """

    linear: float | None
    matrix: float | None
    linear_macs: int
    linear_macs_simulated: int
    matrix_macs: int
    matrix_macs_simulated: int
    kept_back_ops: int = 0
    kept_back_macs: int = 0
    fallback_ops: int = 0
    fallback_macs: int = 0
    uncounted_ops: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            _share("linear layers", self.linear, self.linear_macs_simulated, self.linear_macs),
            _share("all products ", self.matrix, self.matrix_macs_simulated, self.matrix_macs),
        ]
        if self.kept_back_ops:
            lines.append(
                f"kept back by a threshold: {self.kept_back_ops} ops, {self.kept_back_macs:,} MACs"
            )
        if self.fallback_ops:
            lines.append(
                f"fell back to the CPU: {self.fallback_ops} ops, {self.fallback_macs:,} MACs"
            )
        if self.uncounted_ops:
            lines.append("not counted: " + ", ".join(self.uncounted_ops))
        return "\n".join(lines)


def _share(what: str, share: float | None, simulated: int, total: int) -> str:
    if share is None:
        return f"{what} simulated: none seen"
    return f"{what} simulated: {100 * share:6.2f} % ({simulated:,} of {total:,} MACs)"


def measure(
    records: Iterable[Record], counter: MacCounter | None, left_out: Counters = NO_COUNTERS
) -> Coverage:
    """From the records, from what the CPU was seen to compute, and from what was left to it."""
    matrix = linear = 0
    for record in records:
        matrix += record.macs
        linear += record.macs if record.name == LINEAR else 0
    matrix_total = matrix + left_out.fallen_macs
    linear_total = linear + left_out.fallen_linear_macs
    if counter is not None:
        matrix_total += counter.macs
        linear_total += counter.linear_macs
    return Coverage(
        linear=linear / linear_total if linear_total else None,
        matrix=matrix / matrix_total if matrix_total else None,
        linear_macs=linear_total,
        linear_macs_simulated=linear,
        matrix_macs=matrix_total,
        matrix_macs_simulated=matrix,
        kept_back_ops=left_out.kept_ops,
        kept_back_macs=left_out.kept_macs,
        fallback_ops=left_out.fallen_ops,
        fallback_macs=left_out.fallen_macs,
        uncounted_ops=tuple(sorted(counter.uncounted)) if counter else (),
    )
