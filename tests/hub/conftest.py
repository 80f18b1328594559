"""A Hub on 127.0.0.1, with the real client turned towards it; objects of libraries that are not installed."""

import sys
import zlib
from types import ModuleType

import numpy as np
import pytest
import torch
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


class Loud:
    """Complains if anything of it runs while a file is read."""

    def __setstate__(self, state):
        raise AssertionError("the code of a class ran")


@pytest.fixture
def foreign(monkeypatch):
    """Makes a class under the name of one that is not installed."""

    def make(full_name: str) -> type:
        module_name, name = full_name.rsplit(".", 1)
        kind = type(name, (Loud,), {"__module__": module_name})
        parts = module_name.split(".")
        for depth in range(1, len(parts) + 1):
            parent = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent, ModuleType(parent)))
        monkeypatch.setattr(sys.modules[module_name], name, kind, raising=False)
        return kind

    return make


def instance(kind: type, **state):
    made = object.__new__(kind)
    vars(made).update(state)
    return made


@pytest.fixture
def omegaconf(foreign):
    """Containers and nodes with the attributes that omegaconf 2.0 gives them."""
    kinds = {
        dict: foreign("omegaconf.dictconfig.DictConfig"),
        list: foreign("omegaconf.listconfig.ListConfig"),
        None: foreign("omegaconf.nodes.AnyNode"),
    }
    metadata = foreign("omegaconf.base.ContainerMetadata")

    def wrap(value, parent=None):
        about = instance(metadata, ref_type=dict, key=None)
        made = instance(kinds.get(type(value), kinds[None]), _metadata=about, _parent=parent)
        if isinstance(value, dict):
            made._content = {key: wrap(inner, made) for key, inner in value.items()}
        elif isinstance(value, list):
            made._content = [wrap(inner, made) for inner in value]
        else:
            made._val = value
        return made

    return wrap


def recipe_tensor(name: str, shape) -> torch.Tensor:
    """The golden weights: a stream of numbers for each tensor name (golden README, section 2)."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    parts = name.split(".")
    if parts[-1] == "weight" and len(shape) == 1:
        z = 1 + 0.1 * z if "norm" in parts[-2] else 0.5 + 0.1 * z
    elif parts[-1] == "bias":
        z = 0.05 * z
    elif parts[-1] in ("mask_token", "registers", "query_token"):
        z = 0.5 * z
    else:
        fused = ("qkv.weight", "attn_pool.cross_attention_block.q.weight", "attn_pool.cross_attention_block.kv.weight")
        z = (1.5 if name.endswith(fused) else 1.0) * z / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(z).float()


@torch.no_grad()
def named_gradients(model, holder, state_dict) -> dict[str, torch.Tensor]:
    """The gradients of a model under the authors' names; `holder` is another model of the same shapes."""
    for parameter, copy in zip(model.parameters(), holder.parameters(), strict=True):
        copy.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return state_dict(holder)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
