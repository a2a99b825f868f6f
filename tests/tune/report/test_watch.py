"""A served report is the sweep's as it is, and is made anew only when there is more to show."""

import threading
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from magtkd.errors import InputError, SweepError
from tune.report import Pages, make_server


@pytest.fixture
def served(tmp_path):
    """A server of pages that count how often they were made; gives its ledger, and a function that
    asks it."""
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("1")
    made = []

    def make(version):
        if version == "0":
            raise SweepError("damaged; restore it from a copy")
        made.append(version)
        return f"page {len(made)} of {version}"

    server = make_server(Pages([ledger], make), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def ask(path):
        place = f"http://{server.server_address[0]}:{server.server_port}{path}"
        with urllib.request.urlopen(place, timeout=10) as answer:
            return answer.read().decode()

    yield ledger, ask, server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_follows_the_ledger(served):
    ledger, ask, _ = served
    assert ask("/") == "page 1 of 1"
    assert ask("/?again") == "page 1 of 1"
    assert ask("/version") == "1"
    ledger.write_text("12")
    assert ask("/version") == "2"
    assert ask("/") == "page 2 of 2"


def test_a_page_that_takes_long_is_made_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr("tune.report.watch.time", SimpleNamespace(monotonic=lambda: now[0]))
    ledger, now, made = tmp_path / "ledger.jsonl", [0.0], []

    def make(version):
        now[0] += 2.0
        made.append(version)
        return version

    ledger.write_text("1")
    pages = Pages([ledger], make)
    for _ in range(100):
        ledger.write_text(ledger.read_text() + "1")
        pages.page()
        now[0] += 1.0
    # A tenth of the time: once in 20 seconds.
    assert 4 <= len(made) <= 7


def test_it_answers_the_loopback_address_alone_and_nothing_else(served):
    _, ask, server = served
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask("/../../etc/passwd")


def test_a_ledger_that_cannot_be_read_ends_no_server(served):
    ledger, ask, _ = served
    ledger.write_text("")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        ask("/")
    ledger.write_text("1")
    assert ask("/") == "page 1 of 1"


def test_a_port_that_is_taken(served):
    _, _, server = served
    with pytest.raises(InputError, match=rf"--port {server.server_port}: .* in use; choose"):
        make_server(Pages([], str), server.server_port)
