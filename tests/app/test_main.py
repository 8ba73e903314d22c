"""Navigation: four pages, each with its address; the first is the default."""

import pytest

pytest.importorskip("streamlit", reason="pip install 'fmnist-fast[app]'")

from app_pages import go_to, open_page, texts

from fmnist_fast.app import main

TITLES = {"train": "Train a network", "compare": "three backends", "explore": "What a model knows"}


def test_navigation_each_page_has_its_address(app_data):
    app = open_page("classify")
    shown = [texts(app)]
    for address, title in TITLES.items():
        go_to(app, address)
        assert title in app.title[0].value
        assert len(app.title) == 1
        shown.append(texts(app))
    assert len(set(shown)) == 4


def test_navigation_default_page_is_classify(app_data):
    assert texts(open_page("")) == texts(open_page("classify"))


def test_icon_is_inline_svg():
    """Streamlit loads icons given by name from a font server."""
    assert main.ICON.startswith("<svg")
