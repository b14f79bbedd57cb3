"""From a retriever to numbers: read queries and judgements, measure, test differences, load data sets.

Example:
    >>> from ragistry import Ranking
    >>> found = evaluate(lambda texts, k: [Ranking.of(["d1"], [1.0]) for _ in texts], {"q": "why?"}, {"q": {"d1": 1}})
    >>> found.means["nDCG@10"]
    1.0
"""

from .datasets import Dataset, Split, available, load
from .evaluate import Evaluation, evaluate
from .files import pairs_of, read_pairs, read_qrels, read_queries, read_run, write_run
from .significance import Comparison, compare

__all__ = [
    "Comparison",
    "Dataset",
    "Evaluation",
    "Split",
    "available",
    "compare",
    "evaluate",
    "load",
    "pairs_of",
    "read_pairs",
    "read_qrels",
    "read_queries",
    "read_run",
    "write_run",
]
