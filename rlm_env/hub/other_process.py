"""What another process makes of an environment: prints the digests of its first tasks as JSON.

python -m rlm_env.hub.other_process '{"name": "needle-rlm", "options": {}, "seed": 0, "n": {"eval": 20}}'
"""

from __future__ import annotations

import json
import sys

from rlm_env.hub.sameness import task_digest
from rlm_env.registry import find_environment
from rlm_env.task import Tasks


def main() -> None:
    request = json.loads(sys.argv[1])
    environment = find_environment(request["name"], request["seed"], **request["options"])
    digests = {
        split: [task_digest(task) for task in Tasks(lambda split=split: environment.tasks(split), split).take(n)]
        for split, n in reversed(
            list(request["n"].items())
        )  # in the other order: one split may not depend on the other
        if n
    }
    sys.stdout.write(json.dumps(digests) + "\n")


if __name__ == "__main__":
    main()
