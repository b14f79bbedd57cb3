"""From a retriever to numbers: read queries and judgements, measure, test differences, load data sets.

Example:
    >>> from ragistry import Ranking
    >>> found = evaluate(lambda texts, k: [Ranking.of(["d1"], [1.0]) for _ in texts], {"q": "why?"}, {"q": {"d1": 1}})
    >>> found.means["nDCG@10"]
    1.0
"""

from .datasets import Dataset, Split, available, load
from .evaluate import Evaluation, evaluate, measure_run
from .files import pairs_of, read_pairs, read_qrels, read_queries, read_run, write_qrels, write_run
from .leaderboard import Cost, Leaderboard, leaderboard
from .runs import compare_runs, load_run, read_settings, save_run
from .significance import Comparison, compare, interval
from .task import Task

__all__ = [
    "Comparison",
    "Cost",
    "Dataset",
    "Evaluation",
    "Leaderboard",
    "Split",
    "Task",
    "available",
    "compare",
    "compare_runs",
    "evaluate",
    "interval",
    "leaderboard",
    "load",
    "load_run",
    "measure_run",
    "pairs_of",
    "read_pairs",
    "read_qrels",
    "read_queries",
    "read_run",
    "read_settings",
    "save_run",
    "write_qrels",
    "write_run",
]
