"""`shmgemm bench`: rows, goals, JSON, exit codes, and the socket baseline. No times are judged."""

from __future__ import annotations

import csv
import json
import operator
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmgemm import _core, hardware, settings
from shmgemm.bench import baseline, compare, harness, status, suite, timing
from shmgemm.cli import main

NUMBER_OR_NULL = {"type": ["number", "null"]}
ROW = {
    "name": {"type": "string"},
    "p50": {"type": "number"},
    "p99": NUMBER_OR_NULL,
    "unit": {"type": "string"},
    "floor_name": {"type": ["string", "null"]},
    "floor": NUMBER_OR_NULL,
    "ratio": NUMBER_OR_NULL,
    "goal": {"type": ["string", "null"]},
    "met": {"type": ["boolean", "null"]},
}
SHAPE = {"type": "object", "additionalProperties": False}
ROWS = {"type": "array", "items": {**SHAPE, "required": list(ROW), "properties": ROW}}
SCHEMA = {**SHAPE, "required": ["rows"], "properties": {"rows": ROWS}}
BENCHES = ("latency", "gemm", "staging", "async", "model", "timing")
FACTS = {
    "version": {"type": "string"},
    "preset": {"type": "string"},
    "preset_hash": {"type": "string", "pattern": "^[0-9a-f]{12}$"},
    "machine": {
        **SHAPE,
        "required": ["cpu", "cpus", "engine", "torch"],
        "properties": {
            "cpu": {"type": "string", "minLength": 1},
            "cpus": {"type": "integer", "minimum": 1},
            "engine": {"enum": ["embedded", "sst"]},
            "torch": {"type": ["string", "null"]},
        },
    },
    "left_out": {"type": "object", "additionalProperties": {"type": "string"}},
}
NAMED_ROW = {"bench": {"type": "string"}, **ROW}
NAMED_ROWS = {
    "type": "array",
    "items": {**SHAPE, "required": list(NAMED_ROW), "properties": NAMED_ROW},
}
ALL_SCHEMA = {
    **SHAPE,
    "required": [*FACTS, "rows"],
    "properties": {**FACTS, "rows": NAMED_ROWS},
}


def spec(*goals: str) -> harness.Spec:
    return harness.Spec("a row", "us", "its floor", tuple(map(harness.Goal.parse, goals)))


@given(
    st.sampled_from(["p50", "p99", "ratio"]),
    st.sampled_from(["<=", ">="]),
    st.integers(0, 10**6),
    st.floats(0, 1e6),
)
def test_goal_compares_its_metric(metric: str, comparison: str, number: int, value: float) -> None:
    goal = harness.Goal.parse(f"{metric} {comparison} {number}")
    metrics = dict.fromkeys(["p50", "p99", "ratio"], None) | {metric: value}
    judge = operator.le if comparison == "<=" else operator.ge
    assert goal.met(metrics) is judge(value, number)
    assert harness.Goal.parse(str(goal)).metric == metric


@pytest.mark.parametrize("text", ["", "p50", "p50 < 1", "p75 <= 1", "p50 <= soon", "p50 <= 1 us"])
def test_bad_goal_is_named(text: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(repr(text.split()[2] if "soon" in text else text))
    ):
        harness.Goal.parse(text)


def test_row_is_met_when_all_its_goals_are() -> None:
    row = spec("p50 <= 10", "ratio <= 2").row(8.0, 30.0, 4.0)
    assert (row.ratio, row.met, row.goal) == (2.0, True, "p50 <= 10, ratio <= 2")
    assert spec("p50 <= 10", "p99 <= 20").row(8.0, 30.0, 4.0).met is False


def test_metric_that_was_not_measured_misses_its_goal() -> None:
    assert spec("p99 <= 20").row(1.0).met is False
    assert spec("ratio <= 2").row(1.0, floor=None).met is False


def test_row_without_goal_is_neither_met_nor_missed() -> None:
    row = spec().row(5.0, floor=0.0)
    assert (row.met, row.goal, row.ratio) == (None, None, None)


@pytest.mark.parametrize("bench", [*BENCHES, "sst", "guest"])
def test_shipped_goals_load(bench: str) -> None:
    rows = harness.specs(bench)
    assert rows
    names = [row.name for row in rows.values()]
    assert len(set(names)) == len(names)
    for row in rows.values():
        assert not any(goal.metric == "ratio" for goal in row.goals) or row.floor_name


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('unit = "us"', "name"),
        ('name = "x"\nunit = "us"\ngaol = []', "gaol"),
        ('name = "x"\nunit = "us"\ngoals = ["p50 < 1"]', "p50 < 1"),
    ],
)
def test_bad_goals_file_names_file_row_and_key(tmp_path: Path, entry: str, complaint: str) -> None:
    file = tmp_path / "goals.toml"
    file.write_text(f"[latency.some_row]\n{entry}\n")
    with pytest.raises(ValueError) as caught:
        harness.specs("latency", file)
    assert all(word in str(caught.value) for word in (str(file), "latency.some_row", complaint))


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 1e9),
            st.none() | st.floats(0, 1e9),
            st.none() | st.floats(0.001, 1e9),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_json_has_the_one_shape(
    values: list[tuple[float, float | None, float | None, bool]],
) -> None:
    rows = [spec(*["p50 <= 1"] * goal).row(p50, p99, floor) for p50, p99, floor, goal in values]
    report = json.loads(harness.to_json(rows))
    jsonschema.validate(report, SCHEMA)
    assert [row["p50"] for row in report["rows"]] == [row.p50 for row in rows]


def test_table_shows_each_row_and_marks_what_was_missed() -> None:
    text = harness.table([spec("p50 <= 1").row(2.0), spec("p50 <= 3").row(2.0), spec().row(7.0)])
    lines = text.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["MISSED", "met", "us"]
    assert "a row: its floor" in text


def test_percentile_is_the_nearest_rank() -> None:
    samples = list(range(101))
    assert harness.percentile(samples[::-1], 0.5) == 50
    assert harness.percentile(samples, 0.99) == 99
    assert harness.percentile([3.0], 0.99) == 3.0


def test_timing_takes_medians_of_rounds() -> None:
    timing = harness.Timing.of_rounds([(1.0, 9.0), (100.0, 7.0), (2.0, 8.0)])
    assert (timing.p50, timing.p99) == (2.0, 8.0)
    assert timing.scaled(10).p99 == 80.0


def test_interleaved_calls_take_turns() -> None:
    seen: list[str] = []
    calls = {name: lambda name=name: seen.append(name) for name in "ab"}
    timings = harness.interleaved(calls, rounds=2, samples=3, warm=1)
    assert "".join(seen) == "aaaabbbb" * 2
    assert all(0 <= timing.p50 <= timing.p99 for timing in timings.values())


def test_failing_program_is_reported_with_its_words() -> None:
    with pytest.raises(RuntimeError, match="no such place"):
        harness.run(["sh", "-c", "echo no such place >&2; exit 3"])


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize(
    ("value", "options", "code"),
    [(2.0, [], 0), (2.0, ["--check"], 1), (0.5, ["--check"], 0), (0.5, ["--json", "--check"], 0)],
)
def test_check_fails_on_a_miss_alone(
    bench: str,
    value: float,
    options: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if bench in ("gemm", "staging", "async", "model"):
        pytest.importorskip("torch")
    asked: list[bool] = []

    def run(quick: bool) -> list[harness.Row]:
        asked.append(quick)
        return [spec("p50 <= 1").row(value), spec().row(3.0)]

    module = "asynchronous" if bench == "async" else bench
    monkeypatch.setattr(f"shmgemm.bench.{module}.run", run)
    assert main(["bench", bench, "--quick", *options]) == code
    assert asked == [True]
    output = capsys.readouterr()
    if "--json" in options:
        jsonschema.validate(json.loads(output.out), SCHEMA)
    assert ("missed: a row" in output.err) == (value > 1)


def test_guest_goes_with_latency_and_either_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, bool]] = []

    def latency(engine: str, quick: bool) -> list[harness.Row]:
        asked.append((engine, quick))
        return [spec("p50 <= 1").row(2.0)]

    monkeypatch.setattr("shmgemm.bench.through_guest.latency", latency)
    assert main(["bench", "latency", "--guest"]) == 0
    assert main(["bench", "latency", "--guest", "--engine", "sst", "--quick", "--check"]) == 1
    assert asked == [("embedded", False), ("sst", True)]
    assert main(["bench", "gemm", "--guest"]) != 0
    assert "only latency" in capsys.readouterr().err


def told(commands: int, *, extra: int = 0, sojourn_ns: tuple[int, ...] = (0,) * 4) -> status.Status:
    """What a server would say after so many commands, and after `extra` bytes of something else."""
    server, driver, device, engine = sojourn_ns
    answer = {
        "counters": {
            "commands": commands,
            "completions": commands,
            "sojourn_ns": server,
            "bytes_in": commands * (9 + 128) + extra,
            "bytes_out": commands * (4 + 64),
        },
        "driver": {"completions": commands, "sojourn_ns": driver},
        "virtio_device": {"completed": commands, "sojourn_ns": device},
        "info": {
            "link_commands": commands,
            "link_sojourn_ns": engine,
            "link_bytes_in": commands * (8 + 128),
            "link_bytes_out": commands * (8 + 64),
        },
    }
    return status.Status(answer, 1000)


def test_bytes_that_are_no_records_are_seen() -> None:
    questions = 9 + 1000  # a head, and the first answer, which is counted after it was given
    for extra in (0, 1, 180224):
        difference = status.Difference(told(3), told(10, extra=questions + extra))
        assert difference.bytes_beyond_records() == extra


@given(st.lists(st.integers(0, 10**9), min_size=6, max_size=6), st.integers(1, 1000))
def test_hops_add_up_to_the_whole(own_ns: list[int], commands: int) -> None:
    server, driver, device, engine = (ns * commands for ns in own_ns[2:])
    sums = (server + driver + device + engine, driver + device + engine, device + engine, engine)
    difference = status.Difference(told(0), told(commands, sojourn_ns=sums))
    found = status.hops_us(difference, sum(own_ns) / 1e3, own_ns[0] / 1e3)
    assert list(found) == ["host", "tcp", "server", "driver", "device", "engine"]
    np.testing.assert_allclose(list(found.values()), np.array(own_ns) / 1e3, atol=1e-3)


def test_a_row_for_several_is_named_after_each() -> None:
    several = replace(spec("p50 <= 1"), name="{shape} on {preset}")
    row = several.named(shape="1x2x3", preset="tpu_v1").row(0.5)
    assert (row.name, row.met) == ("1x2x3 on tpu_v1", True)


@pytest.fixture(scope="module")
def timed() -> list[harness.Row]:
    """A quick run of `shmgemm bench timing`."""
    return timing.run(quick=True)


def test_timing_has_a_row_for_each_preset_and_closed_form(timed: list[harness.Row]) -> None:
    jsonschema.validate(json.loads(harness.to_json(timed)), SCHEMA)
    names = [row.name for row in timed]
    assert len(set(names)) == len(names)
    assert not any("{" in name for name in names)
    for preset in hardware.presets():
        rates = [
            row for row in timed if "per second" in row.name and row.name.endswith(f", {preset}")
        ]
        (large,) = (row for row in rates if "1024^3" in row.name)
        assert (large.unit, large.goal) == ("M/s", f"p50 >= {100 if preset == 'tpu_v3' else 10}")
        for shape in ("50x384x384", "5x384x384", "1x768x768", "512x768x768"):
            (rate,) = (row for row in rates if f", {shape}, " in row.name)
            assert (rate.unit, rate.goal) == ("M/s", "p50 >= 10")
    for model in timing.CLOSED_FORMS:
        (row,) = (row for row in timed if row.name.endswith(f"closed form {model}"))
        assert row.goal == "p50 <= 1"
    for shape in ("1024^3", "16384^3"):
        assert f"timing of {shape}, tpu_v3" in names
    assert all(row.p50 > 0 for row in timed)


def test_timing_knows_the_closed_forms() -> None:
    models = {model.name for model in _core.models()}
    assert {*timing.CLOSED_FORMS} <= models
    assert {name for name in models if name.startswith("scalesim_")} < {*timing.CLOSED_FORMS}


def test_a_timing_that_cannot_be_is_reported() -> None:
    with pytest.raises(RuntimeError, match="2\\^63"):
        harness.measure("timing", "tpu_v3", m=10**9, n=10**9, k=10**9, rounds=1, samples=1)
    with pytest.raises(RuntimeError, match="needs m, n and k"):
        harness.measure("timing", "tpu_v3", m=1, n=1, rounds=1, samples=1)


@pytest.fixture(scope="module")
def client() -> Any:
    with baseline.Client() as opened:
        yield opened


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_baseline_multiplies(client: baseline.Client, m: int, n: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
    c = np.full((m, n), np.nan, np.float32)
    client.gemm(a, b, c)
    np.testing.assert_allclose(c, a.astype(float) @ b, rtol=1e-4, atol=1e-4)


def test_baseline_sends_what_does_not_fit_a_buffer(client: baseline.Client) -> None:
    a = np.ones((1500, 1500), np.float32)
    c = np.empty_like(a)
    client.gemm(a, a, c)
    assert (c == 1500).all()


def test_baseline_server_ends_with_its_client() -> None:
    with baseline.Client() as opened:
        server = opened._server
        assert server.poll() is None
    assert server.returncode == 0


def report(*rows: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {**facts, "rows": list(rows)}


def entry(name: str, p50: float, **more: Any) -> dict[str, Any]:
    given = {"bench": "latency", "name": name, "p50": p50, "p99": None, "unit": "us"}
    return {**given, "floor_name": None, "floor": None, "ratio": None, "goal": None} | more


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (entry("r", 10), entry("r", 10.9), "same"),
        (entry("r", 10), entry("r", 11.1), "worse"),
        (entry("r", 10), entry("r", 8), "better"),
        (entry("r", 10, unit="M/s"), entry("r", 8, unit="M/s"), "worse"),
        (entry("r", 10, unit="M/s"), entry("r", 12, unit="M/s"), "better"),
        (entry("r", 10, unit="furlongs"), entry("r", 20, unit="furlongs"), ""),
        (entry("r", 10, goal="p50 >= 5"), entry("r", 20, goal="p50 >= 5"), "better"),
        (entry("r", 10, unit="1/s", goal="p50 <= 5"), entry("r", 20, unit="1/s"), "better"),
        (entry("r", 0), entry("r", 0), "same"),
        (entry("r", 0), entry("r", 3), "worse"),
        # slower, but so was the floor
        (entry("r", 10, floor=5, ratio=2.0), entry("r", 40, floor=20, ratio=2.0), "same"),
        (entry("r", 10, floor=5, ratio=2.0), entry("r", 10, floor=4, ratio=2.5), "worse"),
        # a floor on one side alone says nothing
        (entry("r", 10, floor=5, ratio=2.0), entry("r", 10), "same"),
    ],
)
def test_compare_goes_by_each_rows_direction(
    a: dict[str, Any], b: dict[str, Any], verdict: str
) -> None:
    (change,) = compare.compare(report(a), report(b))["changes"]
    assert change.verdict == verdict
    both = a["ratio"] is not None and b["ratio"] is not None
    key = "ratio" if both else "p50"
    assert (change.by, change.a, change.b) == (key, a[key], b[key])


def test_compare_lists_what_is_missing_and_what_else_differs() -> None:
    machine = {"cpu": "a", "cpus": 2, "engine": "embedded", "torch": "2"}
    a = report(entry("both", 1), entry("old", 1), version="1", machine=machine)
    b = report(entry("new", 1), entry("both", 1), version="2", machine=machine | {"cpu": "b"})
    found = compare.compare(a, b)
    assert [change.name for change in found["changes"]] == ["both"]
    assert (found["only_a"], found["only_b"]) == (["latency: old"], ["latency: new"])
    assert found["facts"] == {"version": ["1", "2"], "cpu": ["a", "b"]}
    text = "\n".join(compare.table(found))
    assert all(word in text for word in ("only in A:", "latency: old", "latency: new", "not alike"))


def test_compare_of_a_report_with_itself_changes_nothing() -> None:
    rows = [spec("p50 <= 1").row(2.0, 3.0, 4.0), replace(spec(), name="other").row(0.0)]
    one = json.loads(harness.to_json(rows))
    found = compare.compare(one, one)
    assert [change.verdict for change in found["changes"]] == ["same", "same"]
    assert not found["only_a"] + found["only_b"]


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize(
    ("p50", "check", "code"), [(2.0, True, 1), (2.0, False, 0), (1.0, True, 0)]
)
def test_compare_fails_where_a_row_got_worse(
    p50: float,
    check: bool,
    code: int,
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("a", 1.0), ("b", p50)):
        (tmp_path / name).write_text(json.dumps(report(entry("some row", value))))
    words = ["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"), *options]
    assert main([*words, *["--check"] * check]) == code
    output = capsys.readouterr()
    assert ("worse: some row" in output.err) == (p50 > 1)
    if options:
        assert json.loads(output.out)["changes"][0]["b_to_a"] == p50
    else:
        assert ("worse" in output.out) == (p50 > 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no JSON"),
        ("[]", "no list `rows`"),
        ("{}", "no list `rows`"),
        ('{"rows": [3]}', "row 1: got int"),
        ('{"rows": [{"name": "x", "unit": "us", "p50": "fast"}]}', "`p50` is 'fast'"),
        ('{"rows": [{"name": "x", "unit": "us", "p50": NaN}]}', "`p50` is nan"),
        ('{"rows": [{"unit": "us", "p50": 1}]}', "`name` is None"),
        ('{"rows": [{"name": "x", "unit": "us", "p50": 1, "ratio": "2"}]}', "`ratio` is '2'"),
        ('{"rows": [{"name": "x", "unit": "us", "p50": 1, "goal": 2}]}', "`goal` is 2"),
    ],
)
def test_what_is_no_report_is_named(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    file.write_text(text)
    assert main(["bench", "compare", str(file), str(file)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert complaint in error
    assert len(error.splitlines()) == 1


def test_a_report_that_is_not_there_or_binary_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "compare", str(tmp_path / "none.json"), "x"]) == 1
    assert "none.json" in capsys.readouterr().err
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x01")
    assert main(["bench", "compare", str(tmp_path / "bytes"), "x"]) == 2
    assert "no JSON" in capsys.readouterr().err


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool, bool]]:
    """Every bench has one row that misses its goal, the model's package is missing."""
    asked: list[tuple[str, str, bool, bool]] = []

    def bench(what: str, engine: str, guest: bool) -> suite.Run:
        def run(quick: bool) -> list[harness.Row]:
            asked.append((what, engine, guest, quick))
            if what == "model":
                raise ImportError("install it")
            return [spec("p50 <= 1").row(2.0)]

        return run

    monkeypatch.setattr(suite, "bench", bench)
    return asked


def test_all_runs_every_bench_into_one_object(
    faked: list[tuple[str, str, bool, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "all", "--json", "--quick"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    jsonschema.validate(found, ALL_SCHEMA)
    assert [row["bench"] for row in found["rows"]] == [b for b in BENCHES if b != "model"]
    assert found["left_out"] == {"model": "install it"}
    assert (found["preset"], found["preset_hash"]) == (
        hardware.load(None).name,
        hardware.load(None).digest,
    )
    assert [what for what, *_ in faked] == list(BENCHES)
    assert all(rest == ["embedded", False, True] for _, *rest in faked)
    assert "bench latency: 1 of 6" in output.err


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--engine", "sst"], ["latency", "async"]),
        (["--engine", "sst", "--guest"], ["latency", "async", "guest"]),
        (["--guest"], [*(b for b in BENCHES if b != "model"), "guest"]),
    ],
)
def test_all_runs_what_is_there(
    options: list[str],
    names: list[str],
    faked: list[tuple[str, str, bool, bool]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "all", *options, "--check"]) == 1
    output = capsys.readouterr()
    heads = [line[3:] for line in output.out.splitlines() if line.startswith("== ")]
    assert heads == names
    assert output.err.count("missed: a row") == len(names)
    assert any(guest for *_, guest, _ in faked) == ("--guest" in options)


@pytest.mark.parametrize("before", [None, "embedded"])
def test_the_same_bench_through_sst(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("SHMGEMM_ENGINE", raising=False)
    if before is not None:
        monkeypatch.setenv("SHMGEMM_ENGINE", before)
    asked = []

    def run(quick: bool) -> list[harness.Row]:
        asked.append((quick, settings.resolve("engine")))
        raise KeyError("ended")

    monkeypatch.setattr("shmgemm.bench.asynchronous.run", run)
    with pytest.raises(KeyError, match="ended"):
        suite.bench("async", "sst")(True)
    assert asked == [(True, "sst")]
    assert os.environ.get("SHMGEMM_ENGINE") == before


def test_every_row_of_a_goal_has_a_known_direction() -> None:
    for bench in (*BENCHES, "sst", "guest"):
        for row in harness.specs(bench).values():
            told = {"unit": row.unit, "goal": ", ".join(map(str, row.goals))}
            assert compare.more_is_better(told) is not None, row.name


def test_hidden_share() -> None:
    pytest.importorskip("torch")
    from shmgemm.bench import overlap

    assert overlap.hidden_share(10.0, 6.0, 5.0) == 0.8
    assert overlap.hidden_share(10.0, 12.0, 5.0) < 0
    assert overlap.hidden_share(5.0, 5.0, 5.0) == 0


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_at_depth_gives_the_last_results(depth: int) -> None:
    torch = pytest.importorskip("torch")
    import shmgemm
    from shmgemm.bench import asynchronous

    with shmgemm.open(strict=True, region=32 << 20), torch.no_grad():
        a, b = torch.randn(4, 8), torch.randn(8, 16)
        results = asynchronous.at_depth(a, b, depth, 20)
    assert len(results) == depth
    for result in results:
        torch.testing.assert_close(result, a @ b)


@pytest.fixture
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`bench plot` with torch and the embedded engine alone, up to 16^3."""
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from shmgemm.bench import sizes

    every = sizes.series(False)
    few = {name: every[name] for name in list(every)[:2]}
    monkeypatch.setattr(sizes, "series", lambda guest: few)
    monkeypatch.setattr(sizes, "QUICK_SIZES", (8, 16))
    return sizes


def test_plot_writes_picture_and_csv(few_sizes: Any, tmp_path: Path) -> None:
    out = tmp_path / "sizes.png"
    assert main(["bench", "plot", str(out), "--quick"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "sizes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["series", "size", "p50_us", "p99_us"]
    assert [(row["series"], row["size"]) for row in rows] == [
        (name, size) for name in few_sizes.series(False) for size in ("8", "16")
    ]
    assert all(float(row["p99_us"]) >= float(row["p50_us"]) > 0 for row in rows)


def test_plot_refuses_what_it_cannot_write_before_it_measures(
    few_sizes: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(few_sizes, "measure", lambda *_: pytest.fail("it measured"))
    assert main(["bench", "plot", str(tmp_path / "sizes.doc")]) == 2
    assert "png" in capsys.readouterr().err
    assert main(["bench", "plot", str(tmp_path / "none" / "sizes.png")]) == 1
    assert "no folder" in capsys.readouterr().err
