"""The examples of the element under SST's own test framework: they run, and their numbers add up.

SST_LIB_PATH=$(shmgemm sst-config --lib-path) \\
    $(sst-config --prefix)/bin/sst-test-elements -p sst_gemm_element/tests
"""

import csv
import os
import unittest

# The framework calls the functions by name.
from sst_unittest import (  # noqa: F401
    SSTTestCase,
    setUpModule,
    setUpModuleConcurrent,
    tearDownModule,
    tearDownModuleConcurrent,
)
from sst_unittest_support import sstsimulator_conf_does_have_key

PARTS = ("busy", "fill_drain", "memory_stall", "dispatch")


MEMORY_HIERARCHY = sstsimulator_conf_does_have_key("SST_ELEMENT_SOURCE", "memHierarchy")
needs_memory_hierarchy = unittest.skipUnless(MEMORY_HIERARCHY, "needs memHierarchy")


class testcase_shmgemm(SSTTestCase):
    """One test for each example."""

    def test_shmgemm_one_device(self) -> None:
        self.example("one_device")

    def test_shmgemm_four_devices(self) -> None:
        found = self.example("four_devices")
        totals = {
            sum(found[f"device{index}"][f"{part}_cycles"] for part in (*PARTS, "idle"))
            for index in range(4)
        }
        assert len(totals) == 1, "every device has seen the same time"

    @needs_memory_hierarchy
    def test_shmgemm_memory(self) -> None:
        found = self.example("memory")
        device, cache = found["device"], found["cache"]
        read = sum(device[f"memory_read_bytes_{operand}"] for operand in "abc")
        assert cache["GetS_recv"] * 64 == read
        assert cache["Write_recv"] * 64 == device["memory_write_bytes_c"]

    @needs_memory_hierarchy
    def test_shmgemm_mmio(self) -> None:
        found = self.example("mmio")
        assert found["processor"]["cycles"] == found["device"]["gemm_cycles"]
        assert found["device"]["mmio_errors"] == 0

    def example(self, name: str) -> dict[str, dict[str, int]]:
        """Runs it; its statistics, component -> name -> sum, of which the devices' are checked."""
        examples = os.path.join(self.get_testsuite_dir(), os.pardir, "examples")
        folder = self.get_test_output_run_dir()
        out, err = (os.path.join(folder, f"shmgemm_{name}.{end}") for end in ("out", "err"))
        config = os.path.realpath(os.path.join(examples, f"{name}.py"))
        self.run_sst(config, out, err, set_cwd=folder, timeout_sec=120)
        found = statistics(os.path.join(folder, f"{name}.csv"))
        with open(os.path.join(examples, "gemms.csv")) as lines:
            shapes = [[int(field) for field in line.split(",")[1:4]] for line in list(lines)[1:]]
        for component, of in found.items():
            if not component.startswith("device"):
                continue
            assert sum(of[f"{part}_cycles"] for part in PARTS) == of["gemm_cycles"]
            assert of["gemms"] == len(shapes)
            assert of["macs"] == sum(m * n * k for m, n, k in shapes)
            assert of["rejects"] == 0
        return found


def statistics(path: str) -> dict[str, dict[str, int]]:
    result: dict[str, dict[str, int]] = {}
    with open(path) as lines:
        for row in csv.DictReader(lines, skipinitialspace=True):
            value = int(float(row["Sum.u64"]))
            result.setdefault(row["ComponentName"], {})[row["StatisticName"]] = value
    return result
