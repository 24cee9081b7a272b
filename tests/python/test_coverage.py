"""Coverage: MACs on the CPU are counted as a person would, and what ran where adds up."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import shmgemm

B, L, E, H = 2, 5, 16, 4  # batch, length, width, heads


def counted(work: Callable[[], Any]) -> tuple[int, int]:
    """All MACs and the linear layers' MACs of something that runs on the CPU alone."""
    with shmgemm.profile() as prof:
        work()
    assert prof.records == []
    assert prof.coverage.uncounted_ops == ()
    return prof.coverage.matrix_macs, prof.coverage.linear_macs


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(E, H, 32, batch_first=True, dropout=0.0)


def multihead() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(E, H, batch_first=True)


x = torch.randn(B, L, E)
heads = torch.randn(B, H, L, E // H)
image = torch.randn(B, 4, 8, 8)
ATTENTION = 2 * B * L * L * E
LAYER = B * L * E * (4 * E + 2 * 32)  # the four products of an encoder layer's linear layers
PROJECTIONS = 4 * B * L * E * E
# what makes the callable, its arguments, all MACs, linear layers' MACs
CASES: dict[str, tuple[Callable[[], Callable[..., Any]], tuple[Any, ...], int, int]] = {
    "linear": (lambda: nn.Linear(E, 24), (x,), B * L * E * 24, B * L * E * 24),
    "linear, one vector": (lambda: nn.Linear(E, 24), (x[0, 0],), E * 24, E * 24),
    "linear, no bias": (
        lambda: nn.Linear(E, 24, bias=False),
        (x,),
        B * L * E * 24,
        B * L * E * 24,
    ),
    "functional": (lambda: F.linear, (x, torch.ones(24, E)), B * L * E * 24, 0),
    "mm": (lambda: torch.mm, (x[0], x[1].T), L * E * L, 0),
    "mm out": (lambda: partial(torch.mm, out=torch.ones(L, L)), (x[0], x[1].T), L * E * L, 0),
    "bmm": (lambda: torch.matmul, (x, x.mT), B * L * L * E, 0),
    "addmm in place": (lambda: torch.ones(L, L).addmm_, (x[0], x[1].T), L * E * L, 0),
    "mv": (lambda: torch.matmul, (x[0], torch.ones(E)), L * E, 0),
    "einsum": (lambda: torch.einsum, ("bij,bkj->bik", x, x), B * L * L * E, 0),
    "attention": (lambda: F.scaled_dot_product_attention, (heads, heads, heads), ATTENTION, 0),
    "multihead attention": (multihead, (x, x, x), PROJECTIONS + ATTENTION, PROJECTIONS),
    "multihead attention, fused": (
        lambda: multihead().eval(),
        (x, x, x),
        PROJECTIONS + ATTENTION,
        PROJECTIONS,
    ),
    "encoder layer": (encoder_layer, (x,), LAYER + ATTENTION, LAYER),
    "encoder layer, fused": (lambda: encoder_layer().eval(), (x,), LAYER + ATTENTION, LAYER),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, groups=2), (image,), B * 6 * 36 * (2 * 9), 0),
    "transposed convolution": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
        (image,),
        B * 4 * 64 * (3 * 9),
        0,
    ),
    "LSTM": (lambda: nn.LSTM(E, 8, batch_first=True), (x,), B * L * 4 * 8 * (E + 8), 0),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("case", CASES)
def test_products_of_torch_are_counted(case: str, mode: Callable[[], Any]) -> None:
    make, arguments, macs, linear = CASES[case]
    work = make()
    with mode():
        assert counted(lambda: work(*arguments)) == (macs, linear)


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_padding_that_torch_leaves_out_is_not_counted() -> None:
    encoder = nn.TransformerEncoder(encoder_layer(), 1).eval()
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        macs, linear = counted(lambda: encoder(x, src_key_padding_mask=padding))
    assert linear == (5 + 3) * E * (4 * E + 2 * 32)
    assert macs == linear + 2 * E * (5 * 5 + 3 * 3)


def test_backward_products_are_counted_but_not_as_linear() -> None:
    layer = nn.Linear(E, 24)
    wanted = x.clone().requires_grad_()
    macs, linear = counted(lambda: layer(wanted).sum().backward())
    assert (macs, linear) == (3 * B * L * E * 24, B * L * E * 24)


def test_backward_of_convolution_and_attention() -> None:
    convolution = nn.Conv2d(4, 6, 3)
    macs, _ = counted(lambda: convolution(image).sum().backward())
    assert macs == 2 * B * 6 * 6 * 6 * (4 * 3 * 3)  # the input wants no gradient
    q, k, v = (heads.clone().requires_grad_() for _ in range(3))
    macs, _ = counted(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert macs == ATTENTION + 5 * ATTENTION // 2  # scores again, dP, dV, dQ, dK


def test_results_and_compiled_functions_are_unchanged_by_a_profile() -> None:
    layer = encoder_layer()
    compiled = torch.compile(lambda v: layer(v) * 2, backend="aot_eager")
    expected, first = layer(x), compiled(x)
    with shmgemm.profile() as prof:
        assert torch.equal(layer(x), expected)
        again = compiled(x)
    assert prof.coverage.matrix_macs == 2 * (B * L * E * (4 * E + 2 * 32) + ATTENTION)
    torch.testing.assert_close(again, first)
    torch.testing.assert_close(compiled(x), first)


def test_a_layer_that_raises_leaves_the_count_right() -> None:
    layer = nn.Linear(E, 24)

    def work() -> None:
        with pytest.raises(RuntimeError):
            layer(torch.ones(2, E + 1))
        torch.mm(x[0], x[1].T)

    assert counted(work) == (L * E * L, 0)


def test_offloaded_layers_and_attention_on_the_cpu(session: Any) -> None:
    layer = encoder_layer().eval()
    shmgemm.offload_(layer)
    with torch.no_grad(), shmgemm.profile() as prof:
        layer(x)
    linear = B * L * E * (4 * E + 2 * 32)
    coverage = prof.coverage
    assert (coverage.linear_macs_simulated, coverage.linear_macs) == (linear, linear)
    assert (coverage.matrix_macs_simulated, coverage.matrix_macs) == (linear, linear + ATTENTION)
    assert coverage.linear == 1
    assert coverage.matrix == pytest.approx(linear / (linear + ATTENTION))
    assert "100.00 %" in str(coverage)


def test_layers_left_out_and_kept_back_count_in_the_denominators(session: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(4, 2))
    shmgemm.offload_(model, lambda m, fqn: fqn != "0", min_macs=3 * 4 * 8)
    with torch.no_grad(), shmgemm.profile() as prof:
        model(torch.ones(3, 8))
    coverage = prof.coverage
    assert coverage.linear_macs == coverage.matrix_macs == 3 * (8 * 8 + 8 * 4 + 4 * 2)
    assert coverage.linear_macs_simulated == coverage.matrix_macs_simulated == 3 * 8 * 4
    assert (coverage.kept_back_ops, coverage.kept_back_macs) == (1, 3 * 4 * 2)
    assert "kept back by a threshold: 1 ops, 24 MACs" in str(coverage)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_product_that_falls_back_is_not_covered(mode: Callable[[], Any]) -> None:
    layer = shmgemm.DeviceLinear(2048, 1024)
    small = shmgemm.DeviceLinear(8, 4)
    with shmgemm.open(region=4 << 20), mode(), shmgemm.profile() as prof:
        with pytest.warns(shmgemm.FallbackWarning):
            layer(torch.ones(3, 2048))
        small(torch.ones(3, 8))
    coverage = prof.coverage
    assert (coverage.fallback_ops, coverage.fallback_macs) == (1, 3 * 2048 * 1024)
    assert coverage.linear_macs_simulated == coverage.matrix_macs_simulated == 3 * 8 * 4
    assert coverage.linear_macs == coverage.matrix_macs == 3 * (2048 * 1024 + 8 * 4)


def test_a_bare_product_is_no_linear_layer(session: Any) -> None:
    with shmgemm.profile() as prof:
        shmgemm.gemm(torch.ones(2, 3), torch.ones(3, 4))
    assert prof.coverage.linear is None
    assert prof.coverage.matrix == 1


def test_conv1d_of_transformers_is_a_linear_layer(session: Any) -> None:
    utils = pytest.importorskip("transformers.pytorch_utils")
    layer = utils.Conv1D(24, E)
    with torch.no_grad():
        assert counted(lambda: layer(x)) == (B * L * E * 24, B * L * E * 24)
    shmgemm.offload_(layer)
    with torch.no_grad(), shmgemm.profile() as prof:
        layer(x)
    assert prof.coverage.linear == prof.coverage.matrix == 1
    assert prof.coverage.linear_macs == B * L * E * 24


def test_counting_costs_no_warning(session: Any) -> None:
    with warnings.catch_warnings(), shmgemm.profile() as prof:
        warnings.simplefilter("error")
        shmgemm.gemm(torch.ones(2, 3), torch.ones(3, 4, requires_grad=True)).sum().backward()
    assert len(prof.records) == 2


@given(
    widths=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    rows=st.integers(1, 9),
    chosen=st.sets(st.integers(0, 3)),
    min_macs=st.integers(0, 2000),
    backward=st.booleans(),
)
def test_macs_add_up_wherever_they_run(
    device: Any, widths: list[int], rows: int, chosen: set[int], min_macs: int, backward: bool
) -> None:
    model = nn.Sequential(*(nn.Linear(k, n) for k, n in pairwise(widths)))
    macs = [rows * k * n for k, n in pairwise(widths)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing chosen
        shmgemm.offload_(model, lambda m, fqn: int(fqn) in chosen, min_macs=min_macs)
    with shmgemm.profile() as prof:
        loss = model(torch.ones(rows, widths[0])).sum()
        if backward:
            loss.backward()
    coverage = prof.coverage
    simulated = [m for index, m in enumerate(macs) if index in chosen and m >= min_macs]
    assert coverage.linear_macs == sum(macs)
    assert coverage.linear_macs_simulated == sum(simulated)
    # Each layer's weight gradient and, but for the first, its input's gradient.
    assert coverage.matrix_macs == sum(macs) + backward * (2 * sum(macs) - macs[0])
    assert coverage.matrix_macs_simulated == sum(op.macs for op in prof.records)
    kept = [m for index, m in enumerate(macs) if index in chosen and m < min_macs]
    assert (coverage.kept_back_ops, coverage.kept_back_macs) == (len(kept), sum(kept))
