"""The frame of the app: its pages, what they have in common. Streamlit runs this file."""

import streamlit as st

from fmnist_fast.app import classify, explore
from fmnist_fast.app import compare as race
from fmnist_fast.app import train as training

__all__ = ["show"]

# Three bars: an icon by name would come from the network.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="#2a6f97">'
    '<rect x="3" y="4" width="26" height="6" rx="2"/><rect x="3" y="13" width="20" height="6" '
    'rx="2"/><rect x="3" y="22" width="8" height="6" rx="2"/></svg>'
)


def show() -> None:
    """Draw the page that was asked for."""
    st.set_page_config(page_title="fmnist_fast", page_icon=ICON)
    page = st.navigation(
        [
            st.Page(classify.show, title="Classify", default=True),
            st.Page(training.show, title="Train", url_path="train"),
            st.Page(race.show, title="Compare", url_path="compare"),
            st.Page(explore.show, title="Explore", url_path="explore"),
        ],
        position="top",
    )
    training.collect()
    page.run()
    if page.title != "Train":
        training.mention()


if __name__ == "__main__":
    show()
