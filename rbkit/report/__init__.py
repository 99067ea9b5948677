"""Notebooks become reports: typed parameters, an honest engine, offline HTML, an index."""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "RunParameters": ".parameters",
        "execute": ".engine",
        "NotebookError": ".engine",
        "RbkitEngine": ".engine",
        "run_notebook": ".html",
        "notebook_to_html": ".html",
        "assert_offline": ".html",
        "mathml": ".html",
        "write_report": ".page.page",
    },
)
