"""Tensors in the region: made there, moved there, and alive for as long as someone holds them."""

from __future__ import annotations

import gc
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _tensors  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int32]
)
def test_empty(device: Any, dtype: torch.dtype) -> None:
    tensor = shmgemm.empty(3, 5, dtype=dtype)
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((3, 5), dtype, True)
    assert device.core.contains(tensor.data_ptr(), tensor.nbytes)
    assert tensor.data_ptr() % 64 == 0
    tensor.fill_(3)
    assert tensor.sum() == 45


def test_sizes_as_torch_takes_them() -> None:
    assert shmgemm.empty((2, 3)).shape == shmgemm.empty([2, 3]).shape == (2, 3)
    assert shmgemm.empty(torch.Size([4])).dtype is torch.float32
    assert shmgemm.empty(2, 0, 3).shape == (2, 0, 3)
    assert shmgemm.empty(()).shape == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, "float64", "no such"])
def test_types_no_device_has(dtype: Any) -> None:
    with pytest.raises(shmgemm.Unsupported, match=r"expected one of float32, .*int32"):
        shmgemm.empty(2, dtype=dtype)


def test_negative_sizes() -> None:
    with pytest.raises(shmgemm.Unsupported, match="negative"):
        shmgemm.empty(2, -1)


def test_memory_comes_back(device: Any) -> None:
    gc.collect()
    before = device.stats()["heap_used_bytes"]
    tensor = shmgemm.empty(1000, 100)
    view = tensor[5:7]
    del tensor
    assert device.stats()["heap_used_bytes"] > before
    view.zero_()
    del view
    assert device.stats()["heap_used_bytes"] == before


def test_too_large_is_region_full() -> None:
    with pytest.raises(shmgemm.RegionFull, match="no room") as caught:
        shmgemm.empty(1 << 30)
    assert isinstance(caught.value, MemoryError)


def test_a_tensor_outlives_its_session(device: Any) -> None:
    with shmgemm.open(region=4 << 20):
        tensor = shmgemm.empty(8, 8).fill_(2)
    assert tensor.sum() == 128
    result = shmgemm.gemm(tensor, tensor)  # staged: it lies in another region
    assert torch.equal(result, tensor @ tensor)
    assert device.core.contains(result.data_ptr(), result.nbytes)


def test_to_region_copies_a_tensor_differentiably() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    there = shmgemm.to_region(x.mT)
    assert _tensors.in_region(there)
    assert torch.equal(there, x.mT)
    assert shmgemm.to_region(there) is there
    there.square().sum().backward()
    assert torch.equal(x.grad, 2 * x.detach())


def test_to_region_moves_a_module_in_place() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data.mT)  # shares memory, transposed
    parameters = list(model.parameters())
    values = [p.detach().clone() for p in parameters]
    strides = [p.stride() for p in parameters]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    assert shmgemm.to_region(model) is model
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert all(map(_tensors.in_region, parameters))
    assert [p.stride() for p in parameters] == strides
    for parameter, value in zip(parameters, values, strict=True):
        assert torch.equal(parameter, value)
    model[0].weight.data[0, 1] = 42
    assert model[1].weight[1, 0] == 42
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert model[0].weight[0, 1] != 42
    assert _tensors.in_region(model[0].weight)


def test_a_slice_of_a_large_storage_moves_alone(device: Any) -> None:
    large = torch.randn(1 << 20)
    parameter = nn.Parameter(large[100:164].view(8, 8))
    before = device.stats()["heap_used_bytes"]
    assert shmgemm.to_region(parameter) is parameter
    assert device.stats()["heap_used_bytes"] - before == 256
    assert torch.equal(parameter, large[100:164].view(8, 8))


def test_no_room_for_a_module() -> None:
    model = nn.Linear(8000, 4000)
    with pytest.raises(shmgemm.RegionFull, match="1 of 2 parameters, 128000000 bytes"):
        shmgemm.to_region(model)
    assert model(torch.zeros(1, 8000)).shape == (1, 4000)


@pytest.mark.parametrize("value", [torch.ones(2).double(), torch.eye(2).to_sparse(), "text"])
def test_to_region_refuses(value: Any) -> None:
    with pytest.raises(shmgemm.Unsupported, match="expected a"):
        shmgemm.to_region(value)
