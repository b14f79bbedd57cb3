"""The report in a real browser: everything that can be clicked does what it says, on a desk and on a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Document, Ranking
from ragistry.evaluation.evaluate import measure_run
from ragistry.evaluation.leaderboard import Cost, Leaderboard, leaderboard
from ragistry.evaluation.report import report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
Service = pytest.importorskip("selenium.webdriver.chrome.service").Service
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Select = pytest.importorskip("selenium.webdriver.support.select").Select

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
if not BROWSER or not DRIVER:
    pytest.skip("chromium or chromedriver is not installed", allow_module_level=True)

HOSTILE = '</script><img src=x onerror="window.broken=1"><b>bold</b> \u202esdrawkcab\u202c'
DESK, PHONE = (1280, 900), (390, 844)
TOPICS = ("sonnet", "haiku", "limerick", "ballad", "elegy", "ode", "epic", "villanelle")


def ranking(ids: list[str]) -> Ranking:
    return Ranking(tuple(ids), np.arange(len(ids), 0, -1))


def boards() -> tuple[list[Leaderboard], dict[str, Document]]:
    """Three retrievers of which one has no costs, and a task with one retriever that finds nothing."""
    docs = {
        f"d{i}": Document(f"d{i}", f"All about the {t} and its lines. " * 9, title=f"The {t}")
        for i, t in enumerate(TOPICS)
    }
    docs |= {f"x{i}": Document(f"x{i}", "A poem has lines. " * 30) for i in range(20)}
    docs["x3"] = Document("x3", HOSTILE, title=HOSTILE)
    queries = {f"q{i}": f"lines of the {topic}" for i, topic in enumerate(TOPICS)}
    queries["q7"] = f"villanelle {HOSTILE}"
    qrels = {f"q{i}": {f"d{i}": 2, "gone": 1} for i in range(len(TOPICS))}
    noise = [f"x{i}" for i in range(20)]
    runs = {
        "good": {f"q{i}": ranking([f"d{i}", *noise[:11]]) for i in range(len(TOPICS))},
        "middling": {
            f"q{i}": ranking([f"d{i}", *noise] if i < 3 else [*noise[:12], f"d{i}"]) for i in range(len(TOPICS))
        },
        HOSTILE: {f"q{i}": ranking(noise[:4]) for i in range(len(TOPICS))},
    }
    found = [measure_run(run, qrels, ["nDCG@10", "R@100"], name=name) for name, run in runs.items()]
    costs = {
        "good": Cost(200.0, 5_000_000, 900_000_000, 12.0, 30.0, 80.0),
        "middling": Cost(1.0, 9_000, 80_000, 0.4, 0.9),
    }
    settings = {"good": {"name": "bm25", "k1": 1.2}}
    poems = leaderboard("poems", found, queries, qrels, documents=len(docs), costs=costs, settings=settings)
    nothing = measure_run({"q0": ranking([])}, qrels, ["P@1"], name="finds nothing")
    return [poems, leaderboard("alone", [nothing], queries, qrels, notes=["One note."])], docs


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("report") / "report.html"
    made, docs = boards()
    path.write_text(
        report(made, lambda ids: {id: docs[id] for id in ids if id in docs}, title="Poems"), encoding="utf-8"
    )
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    driver.page = path.as_uri()
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """The page as it opens, on a desk; nothing that happens in it may make an error or ask for anything."""
    resize(browser, *DESK)
    browser.get(browser.page)
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert asked <= {browser.page, "data:,"}
    assert browser.execute_script("return window.broken") is None


def resize(browser: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def texts(page: Any, selector: str) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]


def one(page: Any, selector: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, selector)


def press(page: Any, element: Any) -> None:
    """Click where it is, scrolled into view."""
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def choose(page: Any, selector: str, text: str) -> None:
    Select(one(page, selector)).select_by_visible_text(text)


def overflow(page: Any) -> int:
    return int(
        page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def test_the_table_sorts(page: Any) -> None:
    names = [text.split("\n")[0] for text in texts(page, "#board tbody th")]
    assert names[:2] == ["good", "middling"] and "<b>bold</b>" in names[2] and "\u202e" not in names[2]
    assert one(page, "#verdict").text.startswith("good is best")
    heads = page.find_elements(By.CSS_SELECTOR, "#board thead button")
    assert [head.text for head in heads][:4] == ["Retriever", "nDCG@10", "R@100", "Against the best"]
    p50 = next(head for head in heads if head.text == "p50")
    p50.send_keys(Keys.ENTER)
    assert [text.split("\n")[0] for text in texts(page, "#board tbody th")][:2] == ["middling", "good"]
    assert one(page, "#board th[aria-sort]").get_attribute("aria-sort") == "ascending"
    press(page, p50)
    assert texts(page, "#board tbody th")[0] == "good", "missing costs stay below"
    cells = texts(page, "#board tbody tr:first-child td")
    assert [cells[i] for i in (3, 4, 5, 6, 7, 8)] == ["3 min 20 s", "5 MB", "900 MB", "80", "12 ms", "30 ms"]
    assert "–" in texts(page, "#board tbody tr:last-child td")
    one(page, "#settings summary").click()
    assert "1.2" in texts(page, "#settings dd")


def test_the_plots_follow_the_measure(page: Any) -> None:
    assert len(page.find_elements(By.CSS_SELECTOR, "#plot g[role=img]")) == 2
    assert "Without latency" in one(page, "#plot-hint").text
    labels = [label.rect for label in page.find_elements(By.CSS_SELECTOR, "#plot .label")]
    (p, q) = labels
    assert p["x"] + p["width"] < q["x"] or q["x"] + q["width"] < p["x"] or abs(p["y"] - q["y"]) > 10
    choose(page, "#plot-title + label select", "R@100")
    assert "R@100" in texts(page, "#plot .name")
    assert Select(one(page, "#pair-title ~ label select.measure")).first_selected_option.text == "R@100"
    assert "equal on 8 (100.0 %)" in one(page, "#share").text


def test_a_point_lists_its_queries(page: Any) -> None:
    assert "good is better on 5 queries (62.5 %), both are equal on 3 (37.5 %)" in one(page, "#share").text
    assert len(texts(page, "#queries li")) == 8
    point = one(page, "#scatter .point.a")
    press(page, point)
    assert len(texts(page, "#queries li")) == 5 and "on" in point.get_attribute("class")
    press(page, one(page, "#chosen"))
    assert len(texts(page, "#queries li")) == 8
    page.execute_script("arguments[0].focus()", point)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(texts(page, "#queries li")) == 3


def test_a_query_shows_both_lists(page: Any) -> None:
    press(page, next(b for b in page.find_elements(By.CSS_SELECTOR, "#queries button") if "elegy" in b.text))
    assert one(page, "#detail h3").text == "lines of the elegy"
    good, middling = page.find_elements(By.CSS_SELECTOR, "#detail .list")
    assert abs(good.rect["y"] - middling.rect["y"]) < 2, "side by side"
    assert one(good, "h3").text == "good" and len(good.find_elements(By.CSS_SELECTOR, ".hits li")) == 10
    first = one(good, ".hits li.relevant")
    assert one(first, ".badge").text == "relevant: 2" and one(first, ".score").text == "12"
    assert one(first, ".title").text == "The elegy" and {"elegy", "lines"} <= set(texts(first, "mark"))
    assert texts(middling, ".further .score") == ["rank 13"]
    assert "gone" in one(page, ".others").text and "neither" in one(page, ".others h3").text
    assert "<b>bold</b>" in good.text, "markup in a title is text"


def test_other_retrievers_and_filter(page: Any) -> None:
    Select(one(page, "#b")).select_by_index(2)
    assert "good is better on 8 queries" in one(page, "#share").text
    Select(one(page, "#a")).select_by_index(2)
    assert Select(one(page, "#b")).first_selected_option.text == "good", "they change places"
    one(page, "#filter").send_keys("BALLAD lines")
    assert [text.split("\n")[0] for text in texts(page, "#queries li")] == ["lines of the ballad"]
    one(page, "#filter").send_keys(" nonsense")
    assert one(page, "#listed").text == "No query fits."


def test_another_task(page: Any) -> None:
    choose(page, "#task", "alone")
    assert "finds nothing is best" in one(page, "#verdict").text and texts(page, "#notes li") == ["One note."]
    assert not one(page, "#scatter").is_displayed() and not one(page, "#plot").is_displayed()
    assert "It found nothing." in one(page, "#detail").text and "d0" in one(page, ".others").text
    assert overflow(page) == 0
    choose(page, "#task", "poems")
    assert one(page, "#scatter").is_displayed()


def test_dark_and_light(page: Any) -> None:
    def back() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def bright(colour: str) -> bool:
        return int(colour.split("(")[1].split(",")[0]) > 128

    for scheme in ("light", "dark"):
        preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
        page.get(page.page)
        assert bright(back()) == (scheme == "light")
        press(page, one(page, "#theme"))
        assert bright(back()) == (scheme == "dark")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_is_wider_than_the_screen(page: Any, size: tuple[int, int]) -> None:
    resize(page, *size)
    page.get(page.page)
    for summary in page.find_elements(By.CSS_SELECTOR, "summary"):
        press(page, summary)
    for index in range(8):
        press(page, page.find_elements(By.CSS_SELECTOR, "#queries button")[index])
        assert overflow(page) == 0
    first, second = page.find_elements(By.CSS_SELECTOR, "#detail .list")
    assert (second.rect["y"] > first.rect["y"] + first.rect["height"]) == (size == PHONE), "one below the other"


def test_colours_can_be_read(page: Any) -> None:
    """WCAG AA: 4.5 to 1 between text and what is behind it."""
    script = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
    for _ in range(2):
        assert page.execute_script(script) == []
        press(page, one(page, "#theme"))
