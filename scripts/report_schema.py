"""Writes docs/report.schema.json, the JSON schema of `rlm-env report --json`, from the classes that it is made of.

python scripts/report_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from rlm_env.reports.data import json_schema

PATH = Path(__file__).resolve().parents[1] / "docs" / "report.schema.json"

if __name__ == "__main__":
    PATH.write_text(json.dumps(json_schema(), indent=1) + "\n")
