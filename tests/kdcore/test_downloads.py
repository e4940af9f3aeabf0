"""Downloads without a network: quickly refused, without retries on the screen."""

import logging
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kdcore.downloads import hub_downloads, reachable

NOWHERE = "http://127.0.0.1:9"
CODE = """
from kdcore.errors import DataError
from {module} import {create}
try:
    {create}({arguments})
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "create", "arguments"),
    [
        ("kdcore_images.timm_encoder", "create", "'resnet18', 3, True, None, {}"),
        ("kdcore_video.backbones", "create", "'resnet18', 3, True, None, 1"),
    ],
)
def test_a_download_without_a_network_is_refused_at_once(module, create, arguments, tmp_path):
    without = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**without, "HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path)}
    code = CODE.format(module=module, create=create, arguments=arguments)
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("weights of resnet18 cannot be downloaded")
    assert "Retrying" not in said.stderr


def test_the_switch_and_the_logger_are_as_before(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    with hub_downloads():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == level
    assert "HF_HUB_OFFLINE" not in os.environ


def test_reachable_is_whoever_answers(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert reachable(f"http://127.0.0.1:{server.server_port}")
        thread.join()
    assert not reachable(NOWHERE)
    assert not reachable("no address")
