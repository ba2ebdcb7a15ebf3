"""The app in a browser: the token, a plan of TG-119, another goal, a second browser, one that is closed."""

from __future__ import annotations

import re
import socket
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("panel", reason="the extra app is not installed")

from radplan.app.page import Page
from radplan.app.serve import serve
from radplan.app.session import Session
from radplan.app.workspace import PLANS, Workspace

# Why: warnings of Panel and Bokeh, whose server runs in a thread.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def served(tmp_path):
    running = serve(tmp_path, "tg119", threaded=True)
    running.session.wait()
    for _ in range(200):
        try:
            urllib.request.urlopen(running.url, timeout=5).close()
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    yield running
    running.server.stop()


def opened(browser, url, problems):
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    page.on("console", lambda told: problems.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda sent: None if re.match(r"http://127\.0\.0\.1:|data:|blob:", sent.url) else problems.append(sent.url),
    )
    page.goto(url)
    page.get_by_role("button", name="Plan", exact=True).wait_for()
    return page


def field(page, name):
    return page.get_by_label(name, exact=True)


def filled(page, name, value) -> None:
    field(page, name).fill(value)
    field(page, name).press("Enter")


def planned(page, session, name) -> None:
    page.get_by_role("button", name="Plan", exact=True).click()
    for _ in range(1200):
        if name in session.plans and not session.work.busy:
            return
        assert not session.work.error, session.work.error
        assert not page.locator(".alert-danger").is_visible(), page.locator(".alert-danger").text_content()
        page.wait_for_timeout(100)
    raise AssertionError(f"{name} was not planned: {session.work}")


def test_nobody_comes_in_without_the_token(served) -> None:
    bare = served.url.split("?")[0]
    assert bare.startswith("http://127.0.0.1:")
    for url in (bare, f"{bare}?token=guess"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)
        assert refused.value.code == 403
    answer = urllib.request.urlopen(served.url, timeout=10)
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "<title>radplan</title>" in answer.read().decode()


@pytest.mark.slow
def test_tg119_is_planned_and_a_goal_changes_the_dvh(browser, served, tmp_path) -> None:
    problems: list[str] = []
    page = opened(browser, served.url, problems)
    page.locator(".radplan-slices canvas").first.wait_for()
    for name, value in (("Gantry angles [°]", "0, 120, 240"), ("Bixel or spot [mm]", "15"), ("Dose grid [mm]", "10")):
        filled(page, name, value)
    planned(page, served.session, "plan 1")
    page.locator(".key", has_text="95 % of the prescription").wait_for()
    page.locator(".bk-tab", has_text="Goals").click()
    page.get_by_label("level", exact=True).nth(1).fill("5")
    page.get_by_label("level", exact=True).nth(1).press("Enter")
    page.get_by_label("weight", exact=True).nth(1).fill("30000")
    page.get_by_label("weight", exact=True).nth(1).press("Enter")
    planned(page, served.session, "plan 2")
    core = [served.session.plans[name].plan.metrics()["Core"]["Dmean"] for name in ("plan 1", "plan 2")]
    assert core[1] < 0.9 * core[0]
    page.locator(".bk-tab", has_text="Plan").click()
    page.get_by_text("Core · plan 2").first.wait_for()
    assert f"{core[1]:.2f}" in page.content() or page.get_by_text(f"{core[1]:.2f}").count()
    assert problems == []
    assert (tmp_path / PLANS / "plan 2" / "plan.json").is_file()
    page.close()


@pytest.mark.slow
def test_a_browser_closed_while_planning_loses_nothing_and_a_second_one_sees_it(browser, served) -> None:
    problems: list[str] = []
    page = opened(browser, served.url, problems)
    for name, value in (("Gantry angles [°]", "0, 90"), ("Bixel or spot [mm]", "20"), ("Dose grid [mm]", "10")):
        filled(page, name, value)
    page.get_by_role("button", name="Plan", exact=True).click()
    page.wait_for_timeout(700)
    page.close()
    served.session.wait(120)
    assert "plan 1" in served.session.plans, served.session.work
    second = opened(browser, served.url, problems)
    second.get_by_text("OuterTarget", exact=True).first.wait_for()
    assert problems == []
    second.close()


def test_a_page_tells_what_is_wrong_and_goes_on(tmp_path) -> None:
    session = Session(Workspace(tmp_path))
    page = Page(session)
    assert page.plan_button.disabled
    session.open("box")
    session.wait()
    page.refresh()
    assert {row.structure.value for row in page.goals.rows} == {"OuterTarget", "BODY"}
    page.gantry.value = "0, left"
    page.plan_button.clicks += 1
    assert "gantry angles are numbers" in page.error.object
    page.gantry.value, page.bixel_width.value, page.grid.value = "0, 90", 20.0, 15.0
    page.goals.append()
    page.goals.rows[-1].objective.value = "max_dvh"
    page.goals.rows[-1].more.value = "volume"
    page.plan_button.clicks += 1
    assert "volume=0.95" in page.error.object
    page.goals.rows[-1].more.value = "volume=0.2"
    page.plan_button.clicks += 1
    session.wait()
    page.refresh()
    assert page.error.object == ""
    assert page.chosen.value == ["plan 1"]
    assert page.slices.data["quantities"][0]["name"] == "physical_dose"
    assert "Dmean" in page.metrics.object
    page.prepare_button.clicks += 1
    session.wait()
    page.refresh()
    assert len(page.organ_sliders) == 3
    page.keep_button.clicks += 1
    page.refresh()
    assert "steered 1" in session.plans
    page.kinds.value = ["report"]
    page.export_button.clicks += 1
    assert "report.html" in page.exported.object


def channel(served, headers) -> tuple[str, bytes]:
    """Ask for a websocket with a made-up session; return the status and the first byte that comes over it."""
    address, token = served.url.removeprefix("http://").split("/?token=")
    host, port = address.split(":")
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: {address}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: bokeh, bm8gc2Vzc2lvbg",
        *(f"{name}: {value.format(token=token, address=address)}" for name, value in headers.items()),
    ]
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += line.recv(4096)
        head, _, rest = answer.partition(b"\r\n\r\n")
        status = head.split()[1].decode()
        return status, (rest or (line.recv(1) if status == "101" else b""))[:1]


def test_no_channel_is_opened_from_elsewhere_or_with_a_made_up_session(served) -> None:
    cookie = {"Cookie": "radplan_token={token}"}
    assert channel(served, {**cookie, "Origin": "http://evil.example"})[0] == "403"
    for headers in ({**cookie, "Origin": "http://{address}"}, {"Origin": "http://{address}"}):
        status, first = channel(served, headers)
        assert status == "403" or first in (b"\x88", b""), "closed at once"
