"""What a comparison of runs may honestly say: variants, paired differences, how soon, numbers."""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Variant": ".variants",
        "Comparison": ".variants",
        "compare": ".variants",
        "Difference": ".paired",
        "differences": ".paired",
        "difference_of": ".paired",
        "multiplicity": ".paired",
        "Reach": ".reach",
        "reach_baseline": ".reach",
        "reach_of": ".reach",
        "write_numbers": ".numbers",
    },
)
