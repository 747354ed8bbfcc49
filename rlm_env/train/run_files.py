"""The names of what training runs keep in their folder, beside the files of every run (`runs/folder.py`) and those of
`report/`.

A run that is begun anew where one ended before it had stored anything removes these, so that nothing of the earlier
run counts for it (`run_folder.py`).
"""

from __future__ import annotations

CHECKPOINTS, WEIGHTS, MODEL = "checkpoints", "weights", "model"
"""Folders: what it resumes from, what an engine serves, and the trained model."""
JOURNAL = "journal.jsonl"
"""Which groups were drawn, dropped and trained."""
HELD_OUT = "held_out.jsonl"
"""The rollouts of held-out evaluations."""
TEACHER = "teacher.jsonl"
"""What the teacher has answered."""
