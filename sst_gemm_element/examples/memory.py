"""One accelerator whose memory is simulated by memHierarchy: a cache, and memory behind it.

sst --add-lib-path=$(shmgemm sst-config --lib-path) memory.py -- 50ns    # the memory's access time
Statistics go to memory.csv. Needs sst-elements' memHierarchy.
"""

import sys
from pathlib import Path

import sst

HERE = Path(__file__).parent
ACCESS_TIME = sys.argv[1] if len(sys.argv) > 1 else "50ns"

sst.Component("engine", "shmgemm.HostPort").addParam("host", "none")

device = sst.Component("device", "shmgemm.GemmDevice")
device.addParams({"clock": "1GHz", "rows": 32, "cols": 32, "requests": 64})
interface = device.setSubComponent("memory", "memHierarchy.standardInterface")

source = sst.Component("source", "shmgemm.CommandSource")
source.addParam("file", str(HERE / "gemms.csv"))
sst.Link("commands").connect((source, "device", "1ns"), (device, "commands", "1ns"))

cache = sst.Component("cache", "memHierarchy.Cache")
cache.addParams(
    {
        "L1": 1,
        "cache_frequency": "1GHz",
        "cache_size": "1MiB",
        "associativity": 8,
        "cache_line_size": 64,
        "access_latency_cycles": 2,
        "coherence_protocol": "none",
        "replacement_policy": "lru",
    }
)
controller = sst.Component("controller", "memHierarchy.MemController")
controller.addParams({"clock": "1GHz", "backing": "none", "addr_range_end": 2**28 - 1})
memory = controller.setSubComponent("backend", "memHierarchy.simpleMem")
memory.addParams({"mem_size": "256MiB", "access_time": ACCESS_TIME})

link = sst.Link("device_to_cache")
link.connect((interface, "lowlink", "1ns"), (cache, "highlink", "1ns"))
link = sst.Link("cache_to_memory")
link.connect((cache, "lowlink", "1ns"), (controller, "highlink", "1ns"))

sst.setStatisticLoadLevel(3)
sst.setStatisticOutput("sst.statOutputCSV", {"filepath": "memory.csv"})
sst.enableAllStatisticsForAllComponents()
