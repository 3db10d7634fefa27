"""A real Prometheus over a gateway and its endpoints; the shipped rules and dashboard, as it reads them."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from harness import PATIENCE_SECONDS, REPOSITORY, Fleet, Gateway, Program, answers_200, free_ports, post

SHIPPED = REPOSITORY / "deploy" / "prometheus"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "tokenweir.json"


def promtool(*arguments: str | Path, timeout: float = 5 * PATIENCE_SECONDS) -> str:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict]:
    groups = yaml.safe_load((SHIPPED / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


class Prometheus:
    """Scrapes and evaluates every second, with the shipped rules; alerts wait two seconds instead of minutes."""

    def __init__(self, folder: Path, gateways: list[Gateway], fleet: Fleet):
        self.config = folder / "prometheus.yml"
        self.config.write_text(self._config(gateways, fleet))
        text = (SHIPPED / "rules.yml").read_text()
        text, changed = re.subn(r"^        for: \w+$", "        for: 2s", text, flags=re.MULTILINE)
        assert changed > 5
        (folder / "rules.yml").write_text(text)
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self.program = Program(
            folder,
            "prometheus",
            f"--config.file={self.config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            command="prometheus",
        )
        self.program.wait_until(lambda: answers_200(f"{self.url}/-/ready"), "is ready")

    @staticmethod
    def _config(gateways: list[Gateway], fleet: Fleet) -> str:
        config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        addresses = {
            "tokenweir": [gateway.stats.split("/")[2] for gateway in gateways],
            "vllm": [url.split("/")[2] for url in fleet.urls],
        }
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": addresses.pop(job["job_name"])}]
        assert not addresses
        return yaml.safe_dump(config)

    def query(self, expression: str, at: float | None = None) -> list[dict]:
        """Series and their values, now or at a time; a query Prometheus refuses is a failure."""
        parameters = {"query": expression, "time": at or time.time()}
        answer = post(f"{self.url}/api/v1/query", data=parameters).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return answer["data"]["result"]

    def numbers(self, expression: str) -> list[float]:
        values = [float(series["value"][1]) for series in self.query(expression)]
        return [value for value in values if not math.isnan(value)]

    def firing(self) -> set[str]:
        return {
            series["metric"]["alertname"] for series in self.query('ALERTS{alertstate="firing"}')
        }

    def stop(self) -> None:
        self.program.stop()


@dataclass
class Panel:
    """One query of the dashboard, with its variables replaced."""

    name: str
    expression: str


def panels(policy_a: str = "", policy_b: str = "", pool: str = ".*", model: str = ".*") -> list[Panel]:
    values = {
        "__rate_interval": "30s",
        "__range": "1m",
        "pool": pool,
        "model": model,
        "policy_a": policy_a,
        "policy_b": policy_b,
    }

    def replaced(text: str) -> str:
        for name, value in values.items():
            text = re.sub(rf"\$\{{?{name}\b\}}?", lambda _, value=value: value, text)
        left = re.findall(r"\$(?!\d)\{?\w+", text)
        assert not left, f"unknown variables {left} in {text}"
        return text

    dashboard = json.loads(DASHBOARD.read_text())
    return [
        Panel(f"{panel['title']} {target['refId']}", replaced(target["expr"]))
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
