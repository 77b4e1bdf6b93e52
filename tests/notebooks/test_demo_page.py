"""The page of ``mmsa-lib demo`` in a real browser: it answers, keeps to this machine, and ends with its kernels."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial

import numpy as np
import psutil
import pytest
from ended_processes import alive, ended
from jupyterlab_session import browser, missing_programs, wait_until
from scipy.io import wavfile

from companion.own import missing_extra
from mmsa_lib import predict

PATIENCE = 300  # seconds, on a machine however busy

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs() or "a browser is there"),
]


class Demo:
    """A running ``mmsa-lib demo``: its process, and the address that it printed."""

    def __init__(self, process):
        self.process, self.url = process, process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[0-9a-f]{32,}", self.url)

    @property
    def family(self):
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    folders = {"MMSA_LIB_DATA": str(place / "data"), "MMSA_LIB_RUNS": str(place / "runs")}
    command = [sys.executable, "-m", "mmsa_lib", "demo", "--no-browser"]
    process = subprocess.Popen(
        command, env={**os.environ, **folders}, stdout=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    with ended(process):
        yield Demo(process)


@pytest.fixture(scope="module")
def page(demo, tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        driver.get(demo.url)
        wait_until(lambda: len(answers(driver)) == 2 and all(answers(driver)), PATIENCE, "two answers")
        yield driver


def answers(driver):
    """The text of each answer on the page, read in one go."""
    return driver.execute_script("return [...document.querySelectorAll('.answer')].map(each => each.innerText)")


def score(answer):
    return float(re.match(r"score ([+-]\d\.\d\d), interval", answer)[1])


def test_a_typed_sentence_gets_its_score(page):
    from selenium.webdriver.common.keys import Keys

    (box,) = page.find_elements("css selector", "input[type=text]")
    scores = {}
    for sentence in ("a brilliant film, I loved every minute", "an awful film, boring and badly made"):
        before = answers(page)[0]
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(sentence, Keys.ENTER)
        wait_until(lambda before=before: answers(page)[0] != before, PATIENCE, "another answer")
        scores[sentence] = score(answers(page)[0])
    good, bad = scores.values()
    assert good > bad
    pictures = page.find_elements("css selector", ".picture")
    assert [each.size["width"] > 300 and each.size["height"] > 60 for each in pictures] == [True, True]
    assert score(pictures[0].get_attribute("aria-label")) == bad


def test_a_modality_that_is_switched_off_changes_the_score(page):
    boxes = page.find_elements("css selector", "input[type=checkbox]")
    assert len(boxes) == 3
    seen = [answers(page)[1]]
    assert all(f"{m} moved it by" in seen[0] for m in ("text", "audio", "vision"))
    for box, name in ((boxes[0], "text"), (boxes[1], "audio")):
        box.click()
        wait_until(lambda: answers(page)[1] != seen[-1], PATIENCE, "another answer")
        seen.append(answers(page)[1])
        assert f"{name} moved it by" not in seen[-1]
    assert len(set(map(score, seen))) > 1
    boxes[2].click()
    wait_until(lambda: "keep one of them switched on" in answers(page)[1], PATIENCE, "the reason in one line")


@pytest.mark.skipif(bool(missing_extra()), reason=f"not installed: {missing_extra()}")
def test_a_clip_that_is_dropped_gets_the_score_of_its_words(page, tmp_path):
    said, clip = "a dreadful film, dull and far too long", tmp_path / "clip.wav"
    wavfile.write(clip, 16_000, (3000 * np.sin(np.arange(16_000) / 20)).astype("int16"))
    page.find_element("css selector", "textarea").send_keys(said)
    # The button opens the system's dialog by an input that stands nowhere on the page; here it gets a place instead.
    page.execute_script("HTMLInputElement.prototype.click = function () { document.body.append(this) }")
    page.find_element("css selector", ".widget-upload").click()
    page.find_element("css selector", "input[type=file]").send_keys(str(clip))
    wait_until(lambda: len(answers(page)) == 3 and answers(page)[2], PATIENCE, "an answer to the clip")
    assert score(answers(page)[2]) == round(float(predict("demo", {"text": said})["prediction"].iloc[0]), 2)


def test_nothing_of_another_site_is_asked_for(page, demo):
    base = demo.url.partition("?")[0]
    named = page.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    blocked = " ".join(
        each["message"] for each in page.get_log("browser") if "Content Security Policy" in each["message"]
    )
    assert any(name.startswith(base) for name in named)
    assert [name for name in named if not name.startswith(base) and name not in blocked] == []


def test_it_listens_on_this_machine_alone(page, demo):
    listening = [c for each in demo.family for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    assert int(demo.url.split(":")[2].partition("/")[0]) in {c.laddr.port for c in listening}


def refused(url, **options):
    """The status of an answer that is not the page."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=PATIENCE) as answer:
            return 403 if "/login" in answer.url else answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nobody_without_the_token_sees_or_changes_anything(page, demo):
    base = demo.url.partition("?")[0]
    for path in (
        "",
        "voila/render/demo.ipynb",
        "voila/files/demo.ipynb",
        "api/kernels/12345678-1234-1234-1234-123456789012",
    ):
        assert refused(base + path) in (403, 404), path
    kernel = page.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name).find(n => n.includes('api/kernels/'))"
    )
    name = re.search(r"api/kernels/([0-9a-f-]{36})", kernel)[1]
    assert refused(f"{base}voila/api/shutdown/{name}", method="POST", data=b"") == 403  # another site's form
    assert answers(page)


def test_ctrl_c_ends_it_and_all_that_it_started(page, demo):
    family = demo.family
    (kernel,) = (each.cmdline()[-1] for each in family if "ipykernel_launcher" in each.cmdline())  # its file of keys
    assert os.path.exists(kernel)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(PATIENCE) == 0
    wait_until(lambda: not any(map(alive, family)), PATIENCE, "the end of the kernels")
    assert not os.path.exists(os.path.dirname(kernel))
