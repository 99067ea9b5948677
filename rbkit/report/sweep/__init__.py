"""Sweep: a grid of parameters over a notebook, one process per run, resumable and truthful.

``sweep(...)`` is also ``rbkit.report.sweep(...)``. The parameters of the notebook are
checked before anything runs (:mod:`rbkit.report.parameters`), the grid makes a plan of runs
whose ids come from their content (``plan``), a launcher runs what is not done yet
(``launcher``), and every run folder has a ``job.json`` that records how it ended (``folder``).
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "sweep": ".pipeline",
        "Declared": "rbkit.report.parameters",
        "declared": "rbkit.report.parameters",
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
