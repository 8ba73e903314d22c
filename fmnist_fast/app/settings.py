"""Options of Streamlit: server and theme.

`fmnist-fast app` passes them on; .streamlit/config.toml has the same for `streamlit run app.py`,
and a test compares the two. This module does not load Streamlit.
"""

import json
from pathlib import Path
from typing import Any

# The script that Streamlit runs.
SCRIPT = Path(__file__).with_name("main.py")

OPTIONS: dict[str, Any] = {
    "server.address": "127.0.0.1",  # this machine only, unless --address is given
    "server.maxUploadSize": 10,  # MB, enough for an image
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
    """Convert options to arguments of `streamlit run`, which takes lists as JSON."""
    flags = []
    for name, value in options.items():
        flags += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return flags
