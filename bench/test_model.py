"""The MiniLM sentence encoder on plain torch and with its linear layers on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import shmgemm
from shmgemm.cli import _minilm


@pytest.fixture(scope="module")
def minilm() -> tuple[Any, Any, Any]:
    """Model, its inputs, and what plain torch makes of them."""
    try:
        folder = _minilm.model_folder()
    except ImportError as error:
        pytest.skip(str(error))
    tokenizer, model = _minilm.load(folder)
    inputs = tokenizer(list(_minilm.SENTENCES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model, inputs, model(**inputs).last_hidden_state


def test_plain_torch(minilm: Any, benchmark: Any) -> None:
    model, inputs, expected = minilm
    with torch.inference_mode():
        result = benchmark(lambda: model(**inputs)).last_hidden_state
    torch.testing.assert_close(result, expected, rtol=0, atol=_minilm.TOLERANCE)


def test_offloaded(minilm: Any, timed: Any, benchmark: Any) -> None:
    model, inputs, expected = minilm
    shmgemm.offload_(model)
    try:
        with torch.inference_mode():
            result = timed(lambda: model(**inputs)).last_hidden_state
    finally:
        shmgemm.restore_(model)
    torch.testing.assert_close(result, expected, rtol=0, atol=_minilm.TOLERANCE)
    assert benchmark.extra_info["simulated_cycles"] > 0
    assert benchmark.extra_info["ops"] >= 36


def test_pipelined(minilm: Any, timed: Any, benchmark: Any) -> None:
    model, inputs, expected = minilm
    shmgemm.offload_(model, pipeline=True)
    try:
        with torch.inference_mode():
            result = timed(lambda: model(**inputs)).last_hidden_state
    finally:
        shmgemm.restore_(model)
    torch.testing.assert_close(result, expected, rtol=0, atol=_minilm.TOLERANCE)
    assert benchmark.extra_info["ops"] >= 36
