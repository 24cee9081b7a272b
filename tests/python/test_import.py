"""Importing the package: cheap, complete, honest about the platform, ready for a later torch."""

from __future__ import annotations

import pytest
from scripts import output

import shmgemm


def test_nothing_heavy_is_imported() -> None:
    heavy = ["torch", "numpy", "transformers", "matplotlib"]
    script = f"import sys, shmgemm; print([m for m in {heavy} if m in sys.modules])"
    assert output(script) == "[]"
    script = f"import sys, torch, shmgemm; print([m for m in {heavy[2:]} if m in sys.modules])"
    assert output(script) == "[]"


@pytest.mark.parametrize(
    "imports", ["import shmgemm, torch", "import torch, shmgemm", "import shmgemm, torch.nn"]
)
def test_the_ops_are_there_in_any_order(imports: str) -> None:
    pytest.importorskip("torch")
    assert output(f"{imports}; print(torch.ops.shmgemm.gemm.default)") == "shmgemm.gemm.default"


@pytest.mark.parametrize("name", shmgemm.__all__)
def test_all_that_is_promised_is_there(name: str) -> None:
    assert getattr(shmgemm, name) is not None
    assert name in dir(shmgemm)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'gem'"):
        shmgemm.gem  # noqa: B018


@pytest.mark.parametrize("breakage", ["sys.platform = 'darwin'", "import os; del os.memfd_create"])
def test_other_platforms_are_told_in_one_sentence(breakage: str) -> None:
    script = f"import sys\n{breakage}\ntry:\n  import shmgemm\nexcept ImportError as e: print(e)"
    message = output(script)
    assert message.startswith("shmgemm needs Linux with memfd_create")
    assert "\n" not in message
