"""The corpus explorer: a map, the domains, what is selected, and the log of what was done by hand.

One anywidget holds the whole interface (``ExplorerWidget``); what it asks for is computed in
Python behind it. Neither is imported before it is used.
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
