"""Imported by the fork server alone: torch, transformers and the base, shared by all it forks."""

from __future__ import annotations

import gc
import os
import signal

from nomoat.aggregation.errors import NomoatError
from nomoat.lora.workers.environment import PRELOAD_VARIABLE, prepare

gc.disable()  # while a million objects are made and none can go: a sixth of the time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle, imports included
prepare()
with open(os.devnull) as _nothing:  # a model's folder is read in here: nobody may be asked anything
    os.dup2(_nothing.fileno(), 0)

import peft  # noqa: E402, F401
import torch  # noqa: E402
import transformers.models.auto.modeling_auto  # noqa: E402
import transformers.models.auto.tokenization_auto  # noqa: E402, F401

import nomoat.lora.workers.worker  # noqa: E402, F401 - imported here, its pages are shared as well
from nomoat.lora.model.base_model import load  # noqa: E402
from nomoat.lora.model.bases.loaded_models import keep  # noqa: E402

torch.set_num_threads(1)


def _preload(folder: str) -> None:
    try:
        base = load(folder, "cpu")
        _ = base.base_hash  # read once, here: every worker asks for it
        keep(folder, base)
    except NomoatError:
        return  # each worker meets the same error and reports it


if os.environ.get(PRELOAD_VARIABLE):
    _preload(os.environ.pop(PRELOAD_VARIABLE))
gc.freeze()  # the collector would touch, and so copy, every shared page
gc.enable()
