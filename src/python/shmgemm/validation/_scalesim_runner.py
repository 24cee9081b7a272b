"""Runs SCALE-Sim on folders that hold arch.cfg, gemm.csv and layout.csv; a line as each is done.

Executed by the Python of the environment that has SCALE-Sim, so it imports nothing of this package.
"""

import os
import sys

from scalesim.scale_sim import scalesim  # type: ignore[import-not-found]

for folder in sys.argv[1:]:
    files = {
        name: os.path.join(folder, file)
        for name, file in (
            ("config", "arch.cfg"),
            ("topology", "gemm.csv"),
            ("layout", "layout.csv"),
        )
    }
    scalesim(save_disk_space=True, verbose=False, input_type_gemm=True, **files).run_scale(
        top_path=os.path.join(folder, "theirs")
    )
    print(folder, flush=True)
