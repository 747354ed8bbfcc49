"""What a REPL costs, each figure beside a floor measured in the same run: one JSON line per figure.

    python scripts/bench/repl.py [--only NAME,NAME] [--quick]

Machines and their other users differ, so the figures are ratios; `bound` is what they should stay within. Measured:
opening, stepping, contexts, memory, many REPLs (`repl_steps.py`), llm_batch, forking, ends (`repl_batches.py`), and
what hostile and greedy REPLs cost (`repl_hostile.py`). Attacks and faults are tested (`tests/repl`); long runs are in
`scripts/bench/soak.py`.
"""

from __future__ import annotations

import argparse
import asyncio

from repl_batches import batches, channel, ends, forking
from repl_hostile import floods, forged, polite
from repl_steps import context, many, memory, neighbors, opening, stepping
from repl_tools import be_quick

BENCHES = {
    call.__name__: call
    for call in (
        opening,
        stepping,
        context,
        memory,
        many,
        batches,
        channel,
        neighbors,
        forking,
        ends,
        forged,
        floods,
        polite,
    )
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    if options.quick:
        be_quick()
    names = options.only.split(",") if options.only else list(BENCHES)
    unknown = set(names) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    for name in names:
        await BENCHES[name]()


if __name__ == "__main__":
    asyncio.run(main())
