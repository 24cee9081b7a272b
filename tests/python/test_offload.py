"""offload_ and restore_: what changes, what stays itself, and what is left on the CPU and named."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import scripts  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _fallback, _tensors  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
Records = Callable[[], list[Any]]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 4)))


def first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def compare(
    model: nn.Module, *inputs: torch.Tensor, **options: Any
) -> shmgemm.offload.OffloadReport:
    """Offloaded, then restored, a model computes what it did before."""
    wanted = model(*inputs, **options)
    report = shmgemm.offload_(model)
    ours = model(*inputs, **options)
    torch.testing.assert_close(first(ours), first(wanted), rtol=1e-4, atol=1e-5)
    if isinstance(wanted, tuple) and wanted[1] is not None:
        torch.testing.assert_close(ours[1], wanted[1], rtol=1e-4, atol=1e-5)
    shmgemm.restore_(model)
    assert torch.equal(first(model(*inputs, **options)), first(wanted))
    return report


def test_in_place_and_undone(records: Records) -> None:
    model, x = mlp().eval(), torch.randn(3, 6)
    wanted, layers = model(x), [model[0], model[2][0]]
    parameters = list(model.parameters())
    fired: list[str] = []
    model[0].register_forward_hook(lambda *_: fired.append("hook"))
    report = shmgemm.offload_(model)
    assert report.offloaded == ["0", "2.0"]
    assert report.left == {}
    assert report.no_room == []
    assert [type(layer) for layer in layers] == [shmgemm.DeviceLinear] * 2
    assert (model[0] is layers[0], model[2][0].training) == (True, False)
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert all(map(_tensors.in_region, parameters))
    torch.testing.assert_close(model(x), wanted)
    assert [record.scope for record in records()] == ["0", "2.0"]
    assert shmgemm.restore_(model) == 2
    assert [type(layer) for layer in layers] == [nn.Linear] * 2
    assert not any(map(_tensors.in_region, parameters))
    assert torch.equal(model(x), wanted)
    assert not records()
    assert fired == ["hook", "hook"]
    assert not any(name.startswith("_shmgemm") for m in model.modules() for name in vars(m))


def test_twice_is_once() -> None:
    model = mlp()
    shmgemm.offload_(model, sim_device=1)
    report = shmgemm.offload_(model, min_rows=5)
    assert report.offloaded == ["0", "2.0"]
    assert (model[0].sim_device, model[0].min_rows) == (0, 5)
    assert shmgemm.restore_(model) == 2
    assert shmgemm.restore_(model) == 0
    assert type(model[0]) is nn.Linear


def test_a_model_that_is_a_linear() -> None:
    model = nn.Linear(3, 4)
    assert compare(model, torch.randn(2, 3)).offloaded == [""]
    assert type(model) is nn.Linear


def test_filter_and_devices(records: Records) -> None:
    model = mlp()
    report = shmgemm.offload_(
        model, lambda module, name: name != "0", placement=lambda module, name: len(name) - 2
    )
    assert report.offloaded == ["2.0"]
    assert report.left == {"0": "filter_fn"}
    model(torch.randn(3, 6))
    assert [(r.scope, r.device) for r in records()] == [("2.0", 1)]


def test_thresholds_keep_calls_back_and_count_them(records: Records) -> None:
    model = mlp()
    shmgemm.offload_(model, min_rows=4, min_macs=200)
    before = _fallback.counters()
    for rows in (3, 6):
        x = torch.randn(rows, 6)
        torch.testing.assert_close(
            model(x),
            F.linear(F.linear(x, *model[0].parameters()).relu(), *model[2][0].parameters()),
        )
    kept = _fallback.counters()
    assert [(r.m, r.scope) for r in records()] == [(6, "0")]
    assert kept.kept_ops - before.kept_ops == 3
    assert kept.kept_macs - before.kept_macs == 3 * 48 + 3 * 32 + 6 * 32


@pytest.mark.parametrize("value", [-1, 1.5])
def test_bad_thresholds(value: Any) -> None:
    with pytest.raises(shmgemm.Unsupported, match="min_macs"):
        shmgemm.offload_(mlp(), min_macs=value)


def test_nothing_matched_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="no layer of Sequential"):
        shmgemm.offload_(nn.Sequential(nn.ReLU()))


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 6)
            self.shared = nn.Linear(6, 6)
            self.again = self.shared
            self.head = nn.Linear(6, 10, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.again(self.shared(self.embedding(ids))))

    model = Tied()
    ids = torch.arange(5)
    assert compare(model, ids).offloaded == ["shared", "head"]
    shmgemm.offload_(model)
    assert model.head.weight is model.embedding.weight
    assert model.again is model.shared
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ids).sum().backward()
    optimizer.step()
    wanted = F.linear(
        model.shared.bias
        + (model.shared.bias + model.embedding(ids) @ model.shared.weight.mT)
        @ model.shared.weight.mT,
        model.embedding.weight,
    )
    torch.testing.assert_close(model(ids), wanted)


def test_layers_that_stay_are_named_with_the_reason() -> None:
    class Custom(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(3, 3))

    class Special(nn.Parameter):
        pass

    patched, subclass = nn.Linear(2, 2), nn.Linear(2, 2)
    patched.forward = lambda x: x
    subclass.weight = Special(torch.randn(2, 2))
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(2, 2),
            "custom": Custom(2, 2),
            "lstm": nn.LSTM(2, 2),
            "conv": nn.Conv2d(1, 1, 1),
            "lazy": nn.LazyLinear(2),
            "wide": nn.Linear(2, 2).double(),
            "functional": Functional(),
            "patched": patched,
            "subclass": subclass,
            "embedding": nn.Embedding(2, 2),
            "norm": nn.LayerNorm((2, 2)),
            "quantised": torch.ao.nn.qat.Linear(
                2, 2, qconfig=torch.ao.quantization.get_default_qat_qconfig()
            ),
        }
    )
    report = shmgemm.offload_(model)
    assert report.offloaded == ["linear"]
    wanted = {
        "custom": "Custom is a subclass of nn.Linear",
        "lstm": "no linear layer",
        "conv": "no linear layer",
        "lazy": "run the model once",
        "wide": "torch.float64",
        "functional": r"holds matrix (3, 3)",
        "patched": "forward was replaced",
        "subclass": "strided Special",
        "quantised": "subclass of nn.Linear",
    }
    assert set(report.left) == set(wanted)
    for name, words in wanted.items():
        assert words in report.left[name]
        assert name in str(report)


def test_copies_and_files_of_an_offloaded_model() -> None:
    model, x = mlp(), torch.randn(3, 6)
    shmgemm.offload_(model)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for other in (copy.deepcopy(model), torch.load(stream, weights_only=False)):
        assert torch.equal(other(x), model(x))
        assert shmgemm.restore_(other) == 2
        assert type(other[0]) is nn.Linear
    assert type(model[0]) is shmgemm.DeviceLinear


def test_state_dict_is_unchanged() -> None:
    model, plain = mlp(), mlp()
    shmgemm.offload_(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6)
    torch.testing.assert_close(model(x), plain(x))


def test_weights_without_room_are_named(device: Any) -> None:
    with shmgemm.open(region=4 << 20) as small:
        model = nn.Sequential(nn.Linear(900, 900), nn.Linear(900, 10))
        report = shmgemm.offload_(model)
        assert report.offloaded == ["0", "1"]
        assert report.no_room == ["0"]
        assert _tensors.in_region(model[1].weight)
        assert small.stats()["ops"] == 0


@pytest.mark.parametrize("strict", [False, True])
def test_what_the_report_says_of_layers_without_room_happens(strict: bool) -> None:
    model, x = nn.Sequential(*(nn.Linear(700, 700) for _ in range(3))), torch.randn(2, 700)
    wanted = model(x)
    with shmgemm.open(region=4 << 20, strict=strict):
        report = shmgemm.offload_(model)
        assert report.no_room == ["1", "2"]
        said = "no room in the region for the weights of: 1, 2; a call copies them if there is room"
        assert said in str(report)
        if strict:
            with pytest.raises(shmgemm.RegionFull):
                model(x)
        else:
            before = _fallback.counters().fallen_ops
            with pytest.warns(shmgemm.FallbackWarning, match="RegionFull"):
                torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
            assert _fallback.counters().fallen_ops == before + 2
    roomy = shmgemm.open(region=16 << 20, strict=True)
    with roomy:
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
        assert roomy.stats()["bytes_copied"] > 3 * 700 * 700 * 4


def test_a_device_that_the_session_has_not_is_refused_before_anything_changes() -> None:
    model = mlp()
    message = r"got sim_device 5 for layer '2\.0'; expected less than 2, the number of devices"
    with pytest.raises(shmgemm.Unsupported, match=message):
        shmgemm.offload_(model, placement=lambda m, name: 5 if name == "2.0" else 1)
    assert type(model[0]) is nn.Linear
    assert not any(map(_tensors.in_region, model.parameters()))


@pytest.mark.parametrize("verb", [shmgemm.offload_, shmgemm.restore_])
def test_what_is_no_module_is_named(verb: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=rf"{verb.__name__}: got int; expected an nn\.Module"):
        verb(3)


def test_a_default_session_has_room_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import torch, shmgemm
model = torch.nn.Linear(9000, 9000, bias=False)
assert not shmgemm.offload_(model).no_room
assert shmgemm.stats()["region_bytes"] == 1 << 30
"""
    monkeypatch.delenv("SHMGEMM_REGION", raising=False)
    scripts.output(script)


def test_place_false_moves_nothing() -> None:
    model = mlp()
    shmgemm.offload_(model, place=False)
    assert not any(map(_tensors.in_region, model.parameters()))


# --- attention and transformers ------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_self_attention(
    records: Records, batch_first: bool, need_weights: bool, training: bool
) -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=batch_first).train(training)
    x = torch.randn(3, 5, 16)
    report = compare(attention, x, x, x, need_weights=need_weights)
    assert report.offloaded == [""]
    assert [(r.m, r.n, r.k) for r in records()] == [(15, 48, 16), (15, 16, 16)]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("sizes", [(0, 5), (2, 0), (0, 0)], ids=["batch", "length", "both"])
def test_attention_of_nothing(
    batch_first: bool, need_weights: bool, sizes: tuple[int, int]
) -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=batch_first)
    batch, length = sizes
    x = torch.randn(*(sizes if batch_first else sizes[::-1]), 16)
    compare(attention, x, x, x, need_weights=need_weights)
    if need_weights:  # without, torch itself cannot
        mask = torch.zeros(4 * batch, length, length)
        compare(attention, x, x, x, attn_mask=mask)


@pytest.mark.parametrize("average", [False, True])
def test_cross_attention_with_masks(records: Records, average: bool) -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    query, key = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    causal = torch.ones(5, 7, dtype=torch.bool).triu(1)
    for mask in (causal, torch.randn(5, 7), torch.randn(8, 5, 7)):
        compare(
            attention,
            *(query, key, key),
            key_padding_mask=padding if mask.dtype is torch.bool else None,
            attn_mask=mask,
            average_attn_weights=average,
        )
    assert [r.n for r in records()][:3] == [16, 32, 16]


def test_attention_of_other_sizes() -> None:
    attention = nn.MultiheadAttention(
        16, 4, kdim=6, vdim=10, add_bias_kv=True, add_zero_attn=True, bias=False
    )
    nn.init.normal_(attention.bias_k)
    compare(
        attention,
        *(torch.randn(5, 2, 16), torch.randn(7, 2, 6), torch.randn(7, 2, 10)),
        key_padding_mask=torch.zeros(2, 7),
        attn_mask=torch.randn(8, 5, 7),
    )


def test_attention_without_a_batch() -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.randn(5, 16)
    compare(attention, x, x, x, key_padding_mask=torch.zeros(5, dtype=torch.bool))


def test_attention_trains_as_torchs(records: Records) -> None:
    attention, x = nn.MultiheadAttention(16, 4, batch_first=True), torch.randn(2, 5, 16)
    attention(x, x, x)[0].square().sum().backward()
    wanted = [p.grad.clone() for p in attention.parameters()]
    attention.zero_grad()
    shmgemm.offload_(attention)
    attention(x, x, x)[0].square().sum().backward()
    for parameter, gradient in zip(attention.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
    assert [r.name for r in records()].count("linear.grad_weight") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"is_causal": True}, "hint"), ({"attn_mask": torch.ones(5, 5).long()}, "int64")],
)
def test_attention_refuses(arguments: dict[str, Any], message: str) -> None:
    attention, x = nn.MultiheadAttention(16, 4), torch.randn(5, 2, 16)
    shmgemm.offload_(attention)
    with pytest.raises(RuntimeError, match=message):
        attention(x, x, x, **arguments)


def test_encoder_layer_leaves_its_fast_path(records: Records) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        report = compare(layer, x)
    assert report.offloaded == ["self_attn", "linear1", "linear2"]
    assert [r.scope for r in records()] == ["self_attn", "self_attn", "linear1", "linear2"]
    assert layer.activation_relu_or_gelu == 1


def test_encoder_leaves_nested_tensors(records: Records) -> None:
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2
    ).eval()
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        wanted = encoder(x, src_key_padding_mask=padding)
        shmgemm.offload_(encoder)
        ours = encoder(x, src_key_padding_mask=padding)
    torch.testing.assert_close(ours[~padding], wanted[~padding], rtol=1e-4, atol=1e-5)
    assert len(records()) == 8
    shmgemm.restore_(encoder)
    assert encoder.use_nested_tensor is True


def test_whole_transformer(records: Records) -> None:
    model = nn.Transformer(16, 4, 1, 1, 32, batch_first=True).eval()
    compare(model, torch.randn(2, 5, 16), torch.randn(2, 3, 16))
    scopes = [r.scope for r in records()]
    assert scopes.count("decoder.layers.0.multihead_attn") == 3
    assert scopes.count("encoder.layers.0.linear2") == 1


def test_gpt2_with_its_conv1d(records: Records) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, 50, (2, 6))
    wanted = model(ids).logits
    kinds = {name: type(module) for name, module in model.named_modules()}
    report = shmgemm.offload_(model)
    assert len(report.offloaded) == 9
    assert report.left == {}
    torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-4, atol=1e-5)
    ran = records()
    assert {r.scope for r in ran} == set(report.offloaded)
    assert {r.name for r in ran} == {"linear"}
    assert isinstance(model.transformer.h[0].mlp.c_fc, transformers.pytorch_utils.Conv1D)
    torch.testing.assert_close(copy.deepcopy(model)(ids).logits, wanted, rtol=1e-4, atol=1e-5)
    model(ids).logits.sum().backward()
    gradient = model.transformer.h[1].attn.c_attn.weight.grad.clone()
    shmgemm.restore_(model)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    model.zero_grad()
    model(ids).logits.sum().backward()
    torch.testing.assert_close(
        gradient, model.transformer.h[1].attn.c_attn.weight.grad, rtol=1e-3, atol=1e-4
    )


def test_gpt2_generates_the_same_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    ids = torch.randint(1, 50, (2, 6))
    wanted = model.generate(ids, **options)
    shmgemm.offload_(model)
    assert torch.equal(model.generate(ids, **options), wanted)
