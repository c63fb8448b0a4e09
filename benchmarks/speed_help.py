"""How long `graftkit --help` takes, against importing what any command line of its kind imports: click and rich."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from _ratio import compare, print_table

PAIRS = 40
AIM = 1.5


def main() -> None:
    """Measure and print."""
    script = Path(sys.executable).with_name("graftkit")
    found = compare(
        lambda: _run(str(script), "--help"),
        lambda: _run(sys.executable, "-c", "import click, rich"),
        pairs=PAIRS,
        clock=time.perf_counter,
    )
    header = ("`graftkit --help`, ms", '`python -c "import click, rich"`, ms', "ratio", "range", "pairs", "aim")
    print_table(header, [f"{found.cells(1e-3, 0)} | {found.pairs} | < {AIM}"], packages=["click", "rich"])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
