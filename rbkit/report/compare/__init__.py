"""Comparisons of runs: variants, paired differences, how soon a loss was reached, numbers."""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Variant": ".variants",
        "Comparison": ".variants",
        "compare": ".variants",
        "Finding": ".variants",
        "Difference": ".paired",
        "differences": ".paired",
        "difference_of": ".paired",
        "multiplicity": ".paired",
        "Reach": ".paired",
        "reach_baseline": ".paired",
        "reach_of": ".paired",
        "findings": ".words",
        "write_numbers": ".numbers",
    },
)
