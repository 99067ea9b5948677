"""What the widgets share: scripts and styles in ``static/``, and numbers as bytes."""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__, {"SHARED": ".wire", "joined": ".wire", "packed": ".wire"}
)
