"""One accelerator that a processor commands through its registers, over memHierarchy's bus.

sst --add-lib-path=$(shmgemm sst-config --lib-path) mmio.py
Statistics go to mmio.csv. Needs sst-elements' memHierarchy.
"""

from pathlib import Path

import sst

HERE = Path(__file__).parent
REGISTERS = 2**30  # where the device's lie, behind the memory

sst.Component("engine", "shmgemm.HostPort").addParam("host", "none")

device = sst.Component("device", "shmgemm.GemmDevice")
device.addParams({"clock": "1GHz", "mmio_base": REGISTERS})
registers = device.setSubComponent("mmio", "memHierarchy.standardInterface")

processor = sst.Component("processor", "shmgemm.CommandSource")
processor.addParams({"file": str(HERE / "gemms.csv"), "in_flight": 2, "mmio_base": REGISTERS})
interface = processor.setSubComponent("interface", "memHierarchy.standardInterface")

bus = sst.Component("bus", "memHierarchy.Bus")
bus.addParam("bus_frequency", "1GHz")

controller = sst.Component("controller", "memHierarchy.MemController")
controller.addParams({"clock": "1GHz", "backing": "none", "addr_range_end": REGISTERS - 1})
memory = controller.setSubComponent("backend", "memHierarchy.simpleMem")
memory.addParams({"mem_size": "1GiB", "access_time": "50ns"})

link = sst.Link("processor_to_bus")
link.connect((interface, "lowlink", "1ns"), (bus, "highlink0", "1ns"))
link = sst.Link("bus_to_device")
link.connect((bus, "lowlink0", "1ns"), (registers, "lowlink", "1ns"))
link = sst.Link("bus_to_memory")
link.connect((bus, "lowlink1", "1ns"), (controller, "highlink", "1ns"))

sst.setStatisticLoadLevel(2)
sst.setStatisticOutput("sst.statOutputCSV", {"filepath": "mmio.csv"})
sst.enableAllStatisticsForAllComponents()
