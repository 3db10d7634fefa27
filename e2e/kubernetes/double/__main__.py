"""Runs the double by itself: `python -m double --port 6443 --kubeconfig kubeconfig.json`."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from . import ApiServer


def main() -> None:
    parser = argparse.ArgumentParser(description="A double of the Kubernetes API server.")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kubeconfig", type=Path, help="where to write the administrator's")
    arguments = parser.parse_args()
    server = ApiServer(arguments.address, arguments.port)
    if arguments.kubeconfig:
        server.kubeconfig(arguments.kubeconfig)
    print(server.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
