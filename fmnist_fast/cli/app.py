"""The command `app`."""

import socket
from importlib.util import find_spec
from typing import Any

from ..app.settings import OPTIONS, SCRIPT, as_flags
from ..errors import UserError


def app(*, port: int | None, address: str | None, browser: bool | None) -> None:
    """Run the command."""
    if find_spec("streamlit") is None:
        raise UserError("the app needs Streamlit: pip install 'fmnist-fast[app]'")
    options: dict[str, Any] = dict(OPTIONS)
    if address is not None:
        options["server.address"] = address
    if port is not None:
        options["server.port"] = port
    _check_address(options["server.address"], port or 0)
    if browser is not None:
        options["server.headless"] = not browser
    from streamlit.web.cli import main

    main(["run", *as_flags(options), str(SCRIPT)], standalone_mode=False)


def _check_address(address: str, port: int) -> None:
    """Raise UserError if no server can listen there; port 0 checks the address alone."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, location = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(location)
    except OSError as error:
        where = f"{address}, port {port}" if port else address
        raise UserError(f"cannot listen at {where}: {error.strerror}") from error
