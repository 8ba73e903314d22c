"""How the app is served and what it looks like: the options of Streamlit, in one place.

`fmnist-fast app` passes them on; .streamlit/config.toml says the same to `streamlit run app.py`,
and a test holds the two equal. Nothing here loads Streamlit.
"""

import json
from pathlib import Path
from typing import Any

__all__ = ["OPTIONS", "SCRIPT", "as_flags"]

# What Streamlit runs.
SCRIPT = Path(__file__).with_name("main.py")

OPTIONS: dict[str, Any] = {
    "server.address": "127.0.0.1",  # this machine only, until somebody says otherwise
    "server.maxUploadSize": 10,  # MB: an image is less than that
    "server.enableXsrfProtection": True,
    "server.enableCORS": True,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": False,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,  # they lead to search engines
    "client.toolbarMode": "viewer",
    "runner.magicEnabled": False,
    "theme.baseRadius": "0.4rem",
    "theme.paddingTop": "2.5rem",
    "theme.headingFontSizes": ["1.9rem", "1.6rem", "1.4rem"],
    "theme.headingFontWeights": [600, 600, 600],
    "theme.metricValueFontSize": "1.6rem",
    "theme.light.primaryColor": "#23628a",
    "theme.light.backgroundColor": "#fcfcfa",
    "theme.light.secondaryBackgroundColor": "#f1f1ed",
    "theme.light.textColor": "#20262b",
    "theme.light.linkColor": "#23628a",
    "theme.light.borderColor": "#dcdcd5",
    "theme.dark.primaryColor": "#4d9ac4",
    "theme.dark.backgroundColor": "#14181b",
    "theme.dark.secondaryBackgroundColor": "#1f2529",
    "theme.dark.textColor": "#e4e6e6",
    "theme.dark.linkColor": "#7dbadb",
    "theme.dark.borderColor": "#343c42",
}


def as_flags(options: dict[str, Any]) -> list[str]:
    """The options as arguments of `streamlit run`, which takes a list as JSON."""
    flags = []
    for name, value in options.items():
        flags += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return flags
