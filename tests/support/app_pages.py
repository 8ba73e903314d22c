"""Pages of the app as Streamlit runs them, without a browser."""

import time
from pathlib import Path

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

APP = str(Path(__file__).parents[2] / "app.py")


def open_page(url_path: str) -> AppTest:
    """Return the page at this address, with the navigation, run once."""
    app = AppTest.from_file(APP, default_timeout=60)
    return go_to(app, url_path)


def go_to(app: AppTest, url_path: str) -> AppTest:
    """Open another page in the same session."""
    app._page_hash = calc_hash(url_path)  # AppTest only switches to pages that are files
    app.run()
    assert not app.exception
    return app


def button(app: AppTest, label: str):
    (found,) = (button for button in app.button if button.label == label)
    return found


def labels(app: AppTest) -> set[str]:
    return {found.label for found in app.button}


def texts(app: AppTest) -> str:
    """Return all visible text of the page."""
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.info, app.warning, app.error)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def metrics(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def run_until(app: AppTest, condition, seconds: float = 60) -> AppTest:
    """Run the page again and again, as its fragment does, until the condition holds."""
    end = time.monotonic() + seconds
    while not condition(app):
        assert time.monotonic() < end, texts(app)
        time.sleep(0.02)
        app.run()
        assert not app.exception
    return app
