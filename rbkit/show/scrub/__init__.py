"""After training: move through the rounds of a run, next to another run or another mixer.

One anywidget holds the interface (``ScrubberWidget``); ``Scrubber.freeze()`` is its static twin.
"""

from rbkit._lazy import lazy

# The package stands for its function: Python binds `rbkit.show.scrub` to the package.
__getattr__, __dir__, __all__ = lazy(
    __name__,
    {"Scrubber": ".scrubber", "ScrubberWidget": ".scrubber", "scrub": ".scrubber"},
    call="scrub",
)
