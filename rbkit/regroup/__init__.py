"""Regroup: from examples to semantic domains (R&B, arXiv 2505.00358, Algorithm 2).

corpus -> vectors (`embed_corpus`) -> k (`choose_k`) -> domains (`KMeans`) -> cards.
:func:`regroup`, which is also ``rbkit.regroup(...)``, does all of it; each part can be taken
alone.
"""

from rbkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Card": ".domains",
        "Domains": ".domains",
        "KChoice": ".choose",
        "KMeans": ".cluster",
        "SourceLabels": ".sources",
        "TfidfEmbedder": ".tfidf",
        "TransformerEmbedder": ".transformer",
        "VectorStore": ".store",
        "choose_k": ".choose",
        "embed": ".embedding",
        "embed_corpus": ".embedding",
        "make_cards": ".cards",
        "regroup": ".pipeline",
        "silhouettes": ".choose",
    },
    call="regroup",
)
