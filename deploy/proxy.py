"""Runs nginx in the foreground on a site of its own, with all its files in one folder."""

from __future__ import annotations

import os
from pathlib import Path

KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def command(program: Path, folder: Path, site: str, *directives: str) -> list[str | Path]:
    """The command that runs nginx on `site`; `directives` stand before it in `http { … }`."""
    paths = [f"{kind}_temp_path {folder / kind};" for kind in KINDS]
    inside = " ".join([*paths, "access_log off;", *directives, site])
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder / 'nginx.pid'}; events {{ worker_connections 4096; }} "
        f"http {{ {inside} }}"
    )
    return [program, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "nginx.log"]


def site(shipped: str, listen: str, servers: list[str]) -> str:
    """The shipped site configuration, with other addresses."""
    for number, server in enumerate(servers, start=8001):
        shipped = shipped.replace(f"127.0.0.1:{number}", server)
    return shipped.replace("listen 8000", f"listen {listen}")
