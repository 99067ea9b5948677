"""Fixed mixtures, proposed by small runs before the real one.

Two families: :func:`regmix` learns which mixture leaves which loss from many small runs;
:func:`mixmin` needs one small run per domain and solves a convex problem. Both write ordinary
run folders, continue where they were killed, and give a :class:`Proposal`: a mixture, with
evidence of its worth and its cost.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "regmix": ".regression",
        "mixmin": ".convex",
        "Proposal": ".runs",
        "draw_mixtures": ".regression",
    },
)
