"""Entry script of the app, which Streamlit runs: navigation between the pages."""

import streamlit as st

from fmnist_fast.app import classify, compare, explore, train

# Three bars. An icon by name would be loaded from the network.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="#2a6f97">'
    '<rect x="3" y="4" width="26" height="6" rx="2"/><rect x="3" y="13" width="20" height="6" '
    'rx="2"/><rect x="3" y="22" width="8" height="6" rx="2"/></svg>'
)


def show() -> None:
    """Draw the page of the current address."""
    st.set_page_config(page_title="fmnist_fast", page_icon=ICON)
    page = st.navigation(
        [
            st.Page(classify.show, title="Classify", default=True),
            st.Page(train.show, title="Train", url_path="train"),
            st.Page(compare.show, title="Compare", url_path="compare"),
            st.Page(explore.show, title="Explore", url_path="explore"),
        ],
        position="top",
    )
    job = st.session_state.get(train.JOB)
    running = job if job and not job.ended else None
    page.run()
    if running and page.title != "Train":
        train.show_status(running)  # reruns the page if it ended while the page was drawn


if __name__ == "__main__":
    show()
