"""Reports of runs that are stored: HTML, Markdown, LaTeX, JSON and the console's tables, from the same numbers.

`data.py` holds the numbers, `reading.py` reads them from the folders of runs, `document.py` makes tables and charts of
them, and there is a module for each form. The numbers themselves are computed where every other place takes them from:
`rlm_env/evals/summary.py` and `rlm_env/train/report/`. Not covered: looking at single rollouts (`rlm_env/view/`).
"""
