"""Four accelerators, each with its own source of GEMMs; statistics go to four_devices.csv.

sst --add-lib-path=$(shmgemm sst-config --lib-path) four_devices.py
"""

from pathlib import Path

import sst

HERE = Path(__file__).parent
MODELS = ("systolic", "simt", "ws_double_buffered", "scalesim_os")

sst.Component("engine", "shmgemm.HostPort").addParam("host", "none")

for index, model in enumerate(MODELS):
    device = sst.Component(f"device{index}", "shmgemm.GemmDevice")
    device.addParams({"device": index, "model": model, "clock": "1GHz"})
    source = sst.Component(f"source{index}", "shmgemm.CommandSource")
    source.addParams({"file": str(HERE / "gemms.csv"), "in_flight": 2})
    link = sst.Link(f"commands{index}")
    link.connect((source, "device", "1ns"), (device, "commands", "1ns"))

sst.setStatisticLoadLevel(2)
sst.setStatisticOutput("sst.statOutputCSV", {"filepath": "four_devices.csv"})
sst.enableAllStatisticsForAllComponents()
