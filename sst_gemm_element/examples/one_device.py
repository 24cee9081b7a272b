"""One accelerator plays gemms.csv; its statistics go to one_device.csv. No host program.

sst --add-lib-path=$(shmgemm sst-config --lib-path) one_device.py
"""

from pathlib import Path

import sst

HERE = Path(__file__).parent

engine = sst.Component("engine", "shmgemm.HostPort")
engine.addParam("host", "none")

device = sst.Component("device", "shmgemm.GemmDevice")
device.addParams({"clock": "940MHz", "arrays": 2, "memory_bw": "450GB/s"})

source = sst.Component("source", "shmgemm.CommandSource")
source.addParam("file", str(HERE / "gemms.csv"))
sst.Link("commands").connect((source, "device", "1ns"), (device, "commands", "1ns"))

sst.setStatisticLoadLevel(2)
sst.setStatisticOutput("sst.statOutputCSV", {"filepath": "one_device.csv"})
sst.enableAllStatisticsForAllComponents()
