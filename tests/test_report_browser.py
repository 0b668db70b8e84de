"""Reports in a browser: headless Chromium, where it is, with selenium."""

import base64
import re
import shutil
import threading
import time
import zlib

import numpy as np
import pytest
from reported import begin, history_of, make_run, make_sweep

import funcnet as fn
from funcnet.report.watch import server_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of selenium's connections
]
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = """
    --headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("selenium", reason='selenium is not installed: ".[browser]"')
    if not shutil.which(CHROMIUM) or not shutil.which(DRIVER):
        pytest.skip(f"{CHROMIUM} and {DRIVER} are not there")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that writes the report of directories and opens it; nothing goes wrong in it."""

    def show(*paths, width=1280, dark=False, script=True):
        media(browser, dark=dark)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        file = fn.write_report(list(paths), tmp_path / "report.html")
        browser.get(file.as_uri())
        return browser

    yield show
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def media(browser, *, dark=False, kind=""):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": [scheme]})


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def one(browser, selector):
    return browser.find_element("css selector", selector)


def texts(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    return browser.execute_script(script, selector)


def until(found, seconds=20):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def axis(browser):
    """What a plot's picture is: it changes where the axis does."""
    script = "return [...document.querySelectorAll('.plot canvas')].map(c => c.toDataURL())"
    return browser.execute_script(script)


def cursors(browser):
    """Where the cursor of each plot is: pixels from the left, None if it is not shown."""
    script = """return [...document.querySelectorAll('.plot .u-cursor-x')].map(e =>
        e.classList.contains('u-off') ? null : new DOMMatrix(getComputedStyle(e).transform).m41)"""
    return browser.execute_script(script)


def point_at(browser, plot, x, *, drag_to=None):
    """Move the mouse to a share of the width of a plot, and drag it to another."""
    from selenium.webdriver import ActionChains

    over = all_of(browser, ".plot .u-over")[plot]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", over)
    width = over.size["width"]
    actions = ActionChains(browser).move_to_element_with_offset(over, int((x - 0.5) * width), 0)
    if drag_to is not None:
        actions = actions.click_and_hold().move_by_offset(int((drag_to - x) * width), 5).release()
    actions.perform()
    return over


def test_curves_are_drawn_and_cursors_go_in_step(opened, tmp_path):
    browser = opened(make_run(tmp_path / "r"))
    assert len(all_of(browser, ".plot canvas")) == 3
    assert all_of(browser, ".sketch") == []
    before = texts(browser, ".legend .value")
    point_at(browser, 1, 0.34)
    wide, *others = cursors(browser)
    assert others[0] == pytest.approx(others[1], abs=1)
    widths = [e.size["width"] for e in all_of(browser, ".plot .u-over")]
    assert wide / widths[0] == pytest.approx(others[0] / widths[1], abs=0.01)
    after = texts(browser, ".legend .value")
    assert after != before
    assert after[3:] == ["50.00 %", "50.00 %"]  # after epoch 1


def test_dragging_zooms_all_plots_and_a_double_click_shows_all(opened, tmp_path):
    from selenium.webdriver import ActionChains

    browser = opened(make_run(tmp_path / "r"))
    whole = axis(browser)
    assert not one(browser, "#reset").is_enabled()
    over = point_at(browser, 2, 0.3, drag_to=0.6)
    assert one(browser, "#reset").is_enabled()
    assert all(a != b for a, b in zip(axis(browser), whole, strict=True))
    ActionChains(browser).double_click(over).perform()
    assert not one(browser, "#reset").is_enabled()
    assert axis(browser) == whole
    point_at(browser, 0, 0.3, drag_to=0.6)
    one(browser, "#reset").click()
    assert axis(browser) == whole


def test_the_keyboard_does_what_the_mouse_does(opened, tmp_path):
    from selenium.webdriver.common.keys import Keys

    browser = opened(make_run(tmp_path / "r"))
    whole = axis(browser)
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the report"
    assert browser.switch_to.active_element.rect["x"] >= 0
    plot = all_of(browser, ".plot")[2]
    browser.execute_script("arguments[0].focus({focusVisible: true})", plot)
    assert plot.value_of_css_property("outline-style") == "solid"
    press(browser, Keys.HOME, Keys.ARROW_RIGHT)
    assert texts(browser, "[data-said='2']") == ["epoch 1: training 50.00 %, validation 50.00 %"]
    assert None not in cursors(browser)
    press(browser, "+")
    assert all(a != b for a, b in zip(axis(browser), whole, strict=True))
    press(browser, "0")
    assert axis(browser) == whole
    press(browser, Keys.END)
    assert texts(browser, "[data-said='2']")[0].startswith("epoch 3: ")
    button = all_of(browser, ".legend button")[-1]
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"
    assert axis(browser)[2] != whole[2]


def test_losses_may_be_logarithmic(opened, tmp_path):
    browser = opened(make_run(tmp_path / "r"))
    steps, of_epochs, accuracy = axis(browser)
    one(browser, "#logarithmic").click()
    assert axis(browser)[2] == accuracy
    assert axis(browser)[0] != steps
    assert axis(browser)[1] != of_epochs


def test_members_are_sorted_filtered_and_turned_by_the_page(opened, tmp_path):
    from selenium.webdriver.common.keys import Keys

    browser = opened(make_sweep(tmp_path / "s", 5000))
    rows = "#members-table tbody tr"
    assert len(all_of(browser, rows)) == 50
    assert texts(browser, "#shown") == ["1 to 50 of 5,000 members"]
    rates = f"{rows} td:nth-child(2)"
    button = all_of(browser, "#members-table button.sort")[1]
    button.click()
    found = list(map(float, texts(browser, rates)))
    assert found == sorted(found)
    assert len(found) == 50
    head = button.find_element("xpath", "..")
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    assert float(texts(browser, rates)[0]) > found[-1]
    assert len(all_of(browser, "#members-table th:not([aria-sort=none])[aria-sort]")) == 1
    one(browser, "#next").click()
    assert texts(browser, "#shown") == ["51 to 100 of 5,000 members"]
    one(browser, "#filter").send_keys("4321")
    assert "4321" in texts(browser, f"{rows} th")
    assert len(all_of(browser, rows)) <= 50
    assert "(filtered from 5,000)" in texts(browser, "#shown")[0]
    one(browser, "#filter").clear()
    one(browser, "#filter").send_keys(" ")
    one(browser, "#status-filter").send_keys("diverged")
    assert texts(browser, "#shown") == ["1 to 50 of 500 members (filtered from 5,000)"]
    assert set(texts(browser, f"{rows} td:last-child")) == {"diverged"}
    one(browser, "#filter").send_keys("no such thing")
    assert all_of(browser, rows) == []


def test_python_and_the_script_write_the_same_cells(opened, tmp_path):
    sweep = make_sweep(tmp_path / "s", 40)
    cells = "#members-table tbody tr > *"
    without = texts_without_script(opened, sweep, cells)
    assert len(without) == 40 * 10
    assert texts(opened(sweep), cells) == without


def texts_without_script(opened, path, selector):
    browser = opened(path, script=False)
    return [element.get_attribute("textContent") for element in all_of(browser, selector)]


def test_without_javascript_there_are_tables_and_sketches(opened, tmp_path):
    browser = opened(make_run(tmp_path / "r", model=True), script=False)
    assert len(all_of(browser, ".sketch polyline")) == 5
    assert all(e.size["height"] > 100 for e in all_of(browser, ".sketch svg"))
    assert not one(browser, "#reset").is_displayed()
    assert len(all_of(browser, "#epochs tbody tr")) == 4


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(opened, tmp_path, width):
    confusion = (np.eye(10, dtype=int) * 12345 + 1).tolist()
    names = ["a class with a long name", "b" * 60, *map(str, range(8))]
    facts = {"results": {"test_confusion": confusion}, "class_names": names, "title": "x" * 200}
    paths = [make_run(tmp_path / "r", model=True, facts=facts)], [make_sweep(tmp_path / "s", 60)]
    several = [
        make_run(tmp_path / f"run-{i}-{'y' * 40}", learning_rate=0.1 / (i + 1)) for i in range(9)
    ]
    for each in (*paths, several):
        browser = opened(*each, width=width)
        found = browser.execute_script("""return [document.documentElement.scrollWidth,
            ...[...document.querySelectorAll('main > *, header, figure')].map(
                e => Math.ceil(e.getBoundingClientRect().right))]""")
        assert max(found) <= width


CONTRAST = """
const parse = text => {
    const numbers = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith('color(') ? 255 : 1;
    return [...numbers.slice(0, 3).map(n => n * scale), numbers.length > 3 ? numbers[3] : 1];
};
const luminance = c => {
    const [r, g, b] = c.slice(0, 3).map(v => {
        v /= 255;
        return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = e => {
    for (; e; e = e.parentElement) {
        const c = parse(getComputedStyle(e).backgroundColor);
        if (c[3] === 1) return c;
    }
    return [255, 255, 255, 1];
};
const ratio = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
};
const found = [];
for (const e of document.querySelectorAll('body *')) {
    if (e.closest('script, style, option')) continue;
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (own && !e.disabled) found.push([
        ratio(parse(getComputedStyle(e).color), background(e)), 4.5, e.outerHTML.slice(0, 80)]);
}
for (let i = 0; i < 6; i++) {
    const probe = document.createElement('p');
    probe.style.color = `var(--color${i})`;
    document.body.append(probe);
    found.push([ratio(parse(getComputedStyle(probe).color), background(probe)), 3, `color${i}`]);
    probe.remove();
}
return found;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_curves_have_contrast(opened, tmp_path, dark):
    shares = [[100 - 10 * i if i == j else 0 for j in range(10)] for i in range(10)]
    for i in range(1, 10):
        shares[i][0] = 10 * i
    facts = {"results": {"test_confusion": shares}}
    for path in (make_run(tmp_path / "r", model=True, facts=facts), make_sweep(tmp_path / "s", 60)):
        browser = opened(path, dark=dark)
        browser.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
        found = browser.execute_script(CONTRAST)
        assert len(found) > 100
        assert [each for each in found if each[0] < each[1]] == []
    body = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert body == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")


def test_a_change_to_dark_draws_the_curves_anew(opened, tmp_path):
    browser = opened(make_run(tmp_path / "r"))
    light = axis(browser)
    media(browser, dark=True)
    until(lambda: axis(browser) != light)
    media(browser)
    until(lambda: axis(browser) == light)


def test_on_paper_curves_are_dark_on_light(opened, tmp_path):
    browser = opened(make_run(tmp_path / "r"), dark=True)
    dark = axis(browser)
    media(browser, dark=True, kind="print")
    until(lambda: axis(browser) != dark)
    assert not one(browser, "nav").is_displayed()
    assert browser.execute_script("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF-")
    streams = re.findall(rb"stream\r?\n(x.*?)endstream", pdf, re.DOTALL)
    drawn = b"".join(map(zlib.decompress, streams))
    blue = rb"\.0392 \.3843 \.6745 RG"  # --color0 in report.css, of light pages
    assert re.search(blue + rb"[^S]*\s(\S+ \S+ [ml]\n){75}", drawn)  # the loss of 75 steps
    media(browser)


def test_long_curves_have_their_range_shaded(opened, tmp_path):
    browser = opened(make_run(tmp_path / "r", history=history_of(steps=30_000)))
    assert "Each point is the mean of 50 steps" in one(browser, "figcaption").text
    assert len(axis(browser)) == 3


def test_a_watched_page_follows_its_run(browser, tmp_path):
    media(browser)
    path = tmp_path / "r"
    path.mkdir()

    def status():
        return "".join(texts(browser, "#status"))

    def measured():
        return len(texts(browser, "#epochs tbody tr"))

    with server_of(path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            browser.get(f"http://localhost:{server.server_port}/")
            assert status() == "Waiting for the run to begin"
            begin(path)
            until(lambda: status() == "Waiting for the first epoch")
            assert texts(browser, ".waiting") == ["Waiting for the first epoch"] * 2
            begin(path, 0)
            until(lambda: measured() == 1)
            begin(path, 0, 1)
            until(lambda: measured() == 2)
            assert len(all_of(browser, ".plot canvas")) == 2
            assert texts(browser, ".legend .value") == ["0.5", "1", "50.00 %", "10.00 %"]
            assert browser.execute_script(
                "return performance.getEntriesByType('navigation')[0].type"
            )
            begin(path, 0, 1, 2, status="stopped")
            until(lambda: status() == "Stopped early after 2 epochs")
            until(lambda: "test accuracy" in texts(browser, ".facts dt"))
        finally:
            server.shutdown()
            thread.join()
    assert [entry["message"] for entry in browser.get_log("browser")] == []
