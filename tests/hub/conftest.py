"""A Hub on 127.0.0.1, and the real client of this process turned towards it."""

import pytest
from huggingface_hub import HfFileSystem, constants

from .loopback_hub import LoopbackHub

OWNER_TOKEN, READER_TOKEN, STRANGER_TOKEN = "hf_owner", "hf_reader", "hf_stranger"
ACCOUNTS = {OWNER_TOKEN: ("owner", "write"), READER_TOKEN: ("owner", "read"), STRANGER_TOKEN: ("stranger", "write")}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server. What the client reads from the environment when it is imported is set here; no token is."""
    with LoopbackHub(tmp_path / "hub", ACCOUNTS) as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # knows the server of before
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Xet needs another server
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        HfFileSystem.clear_instance_cache()
        yield server
        HfFileSystem.clear_instance_cache()
