"""What `%load_ext ftmagic` costs on top of a running IPython, in fresh processes.

Prints one JSON line. Compared with importing the `openai` SDK in the same processes.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys

N_PROCESSES = 11

CODE = """
import json, sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
started = time.perf_counter()
shell.run_line_magic("load_ext", "ftmagic")
loaded = time.perf_counter()
heavy = [n for n in ("openai", "torch", "anywidget", "transformers") if n in sys.modules]
before_sdk = time.perf_counter()
import openai
print(json.dumps([loaded - started, time.perf_counter() - before_sdk, heavy]))
"""


def main() -> None:
    """Measure and print."""
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", CODE])) for _ in _warm()]
    load_ms = [1000 * run[0] for run in runs]
    sdk_ms = [1000 * run[1] for run in runs]
    print(
        json.dumps(
            {
                "benchmark": "import_time",
                "python": platform.python_version(),
                "n": len(runs),
                "load_ext_ms_median": round(statistics.median(load_ms), 1),
                "load_ext_ms_max": round(max(load_ms), 1),
                "import_openai_ms_median": round(statistics.median(sdk_ms), 1),
                "heavy_modules_loaded": sorted({name for run in runs for name in run[2]}),
            }
        )
    )


def _warm() -> range:
    subprocess.check_output([sys.executable, "-c", CODE])  # byte code and disk cache
    return range(N_PROCESSES)


if __name__ == "__main__":
    main()
