"""The corpus explorer: a map, the domains, the selection, and the log of edits made by hand.

One anywidget holds the whole interface (``ExplorerWidget``); Python computes what it asks for.
Nothing is imported before it is used.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Explorer": ".explorer",
        "ExplorerWidget": ".widget",
        "Session": ".session",
        "explore": ".explorer",
    },
)
