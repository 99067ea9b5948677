"""Sweep: a grid of parameters over a notebook, one process per run, resumable and truthful.

``sweep(...)`` is also ``rbkit.report.sweep(...)``. The parameters of the notebook are
checked before anything runs (``declared``), the grid makes a plan of runs whose ids come
from their content (``plan``), a pool runs what is not done yet, and every run folder says
in its ``job.json`` how it ended (``jobfile``).
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "sweep": ".pipeline",
        "Declared": "rbkit.report.parameters",
        "read_declared": "rbkit.report.parameters",
        "parse_grid": ".grid",
        "format_grid": ".grid",
        "Job": ".plan",
        "Plan": ".plan",
        "make_plan": ".plan",
        "read_job": ".folder",
        "job_status": ".folder",
        "run_plan": ".launcher",
        "SweepResult": ".launcher",
        "print_status": ".status",
    },
    call="sweep",
)
