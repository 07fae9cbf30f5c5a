"""The one place that knows how torch's devices differ: a class for each kind.

Whatever else needs a device holds a `Device` and asks it. `KINDS` is a table so that a stand-in
with CUDA's rules can take the place of a GPU where there is none (tests/fake_gpu).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.lora.device.present import names, why_no_cuda
from nomoat.lora.device.recording import CudaRecorder, KernelRecorder

if TYPE_CHECKING:
    import torch

ORDER = ("cuda", "xpu", "mps")  # of what "auto" looks for


class Device:
    """A processor, and what the other kinds change of it. place: where tensors are put."""

    kind: ClassVar[str] = "cpu"
    quantises: ClassVar[bool] = True  # bitsandbytes has kernels for it
    own_memory: ClassVar[bool] = False

    def __init__(self, place: torch.device) -> None:
        self.place = place

    @classmethod
    def is_there(cls) -> bool:
        """Tell whether torch finds one; starts nothing."""
        return True

    @classmethod
    def why_not(cls) -> str:
        """Say in half a line why torch finds none."""
        return ""

    def start(self) -> None:
        """Start the device in this process; UsageError or DoesNotFit, in one line, if it fails."""

    def dtype(self) -> torch.dtype:
        """Return the type that a base's weights are loaded in."""
        import torch

        return torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which matrix products are computed in `dtype`."""
        return contextlib.nullcontext()

    @property
    def loss_scale(self) -> float:
        """Return the factor of the loss that keeps gradients inside the range of `dtype`."""
        return 1.0

    def recorder(self) -> KernelRecorder | None:
        """Return what records the device's work, None where launching it costs nothing."""
        return None

    def synchronise(self) -> None:
        """Wait until the work that the device was given is done."""

    def give_back(self) -> None:
        """Let go of memory that torch keeps for later: pieces of another size need it."""

    def total_bytes(self) -> int:
        """Return the device's memory; 1 where that is not asked for: all are alike."""
        return 1

    def random_state(self) -> dict[str, torch.Tensor]:
        """Return the state of the device's own random generator, by its name in a checkpoint."""
        return {}

    def set_random_state(self, states: dict[str, torch.Tensor]) -> None:
        """Put back what `random_state` gave, where it is among `states`."""


class Cuda(Device):
    """An NVIDIA GPU, or an AMD one under ROCm, whose torch goes by the same names."""

    kind = "cuda"
    own_memory = True

    @classmethod
    def is_there(cls) -> bool:
        """Tell whether torch finds one."""
        import torch

        return bool(torch.cuda.is_available())

    @classmethod
    def why_not(cls) -> str:
        """Say why torch finds none."""
        return why_no_cuda()

    def start(self) -> None:
        """Make the context; whatever the driver says is told in one line."""
        import torch

        count = torch.cuda.device_count()
        if (self.place.index or 0) >= count:
            raise UsageError(f"there is no {self.place}: CUDA counts {count} here, from cuda:0")
        try:
            torch.zeros(1, device=self.place)
        except torch.OutOfMemoryError:
            raise DoesNotFit(f"{self.place} has no free memory; close what uses it") from None
        except (RuntimeError, AssertionError) as problem:
            said = " ".join(str(problem).split())[:160]
            raise UsageError(f"{self.place} cannot be started, use cpu: {said}") from problem

    def dtype(self) -> torch.dtype:
        """bfloat16, or float16 on cards before Ampere, which have no bfloat16."""
        import torch

        capable = torch.version.hip is not None
        capable = capable or torch.cuda.get_device_capability(self.place) >= (8, 0)
        return torch.bfloat16 if capable else torch.float16

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Multiply in `dtype`."""
        import torch

        return torch.autocast("cuda", self.dtype())

    @property
    def loss_scale(self) -> float:
        """2¹³ for float16, whose smallest normal number is 6·10⁻⁵."""
        import torch

        return 2.0**13 if self.dtype() is torch.float16 else 1.0

    def recorder(self) -> KernelRecorder | None:
        """Return a recorder of CUDA graphs."""
        return CudaRecorder(self.place)

    def synchronise(self) -> None:
        """Wait for the kernels that were launched."""
        import torch

        torch.cuda.synchronize(self.place)

    def give_back(self) -> None:
        """Empty the caching allocator."""
        import torch

        torch.cuda.empty_cache()

    def total_bytes(self) -> int:
        """Return what the driver says."""
        import torch

        return int(torch.cuda.mem_get_info(self.place)[1])

    def random_state(self) -> dict[str, torch.Tensor]:
        """Return that of CUDA's generator."""
        import torch

        return {"random.cuda": torch.cuda.get_rng_state(self.place)}

    def set_random_state(self, states: dict[str, torch.Tensor]) -> None:
        """Put it back."""
        import torch

        if "random.cuda" in states:
            torch.cuda.set_rng_state(states["random.cuda"], self.place)


class Mps(Device):
    """Apple's GPU: float32, memory shared with the processor."""

    kind = "mps"
    quantises = False

    @classmethod
    def is_there(cls) -> bool:
        """Tell whether torch finds one."""
        import torch

        return bool(torch.backends.mps.is_available())

    @classmethod
    def why_not(cls) -> str:
        """Say who has one."""
        return "MPS is Apple silicon's"

    def synchronise(self) -> None:
        """Wait for the kernels that were launched."""
        import torch

        torch.mps.synchronize()

    def give_back(self) -> None:
        """Empty the caching allocator."""
        import torch

        torch.mps.empty_cache()


class Xpu(Device):
    """An Intel GPU, through torch's own backend: bfloat16."""

    kind = "xpu"
    own_memory = True

    @classmethod
    def is_there(cls) -> bool:
        """Tell whether torch finds one."""
        import torch

        return bool(torch.xpu.is_available())

    @classmethod
    def why_not(cls) -> str:
        """Say what is needed."""
        return "XPU needs an Intel GPU and torch's build for it"

    def dtype(self) -> torch.dtype:
        """bfloat16."""
        import torch

        return torch.bfloat16

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Multiply in bfloat16."""
        import torch

        return torch.autocast("xpu", torch.bfloat16)

    def synchronise(self) -> None:
        """Wait for the kernels that were launched."""
        import torch

        torch.xpu.synchronize()

    def give_back(self) -> None:
        """Empty the caching allocator."""
        import torch

        torch.xpu.empty_cache()


KINDS: dict[str, type[Device]] = {kind.kind: kind for kind in (Device, Cuda, Mps, Xpu)}


def of(place: torch.device) -> Device:
    """Return the device that tensors at `place` are on."""
    return KINDS.get(place.type, Device)(place)


def pick(device: str) -> Device:
    """Return the device meant by "auto" (a GPU if there is one), "cpu", "mps", "cuda:1" …

    Of a list, the first. UsageError in one line if it is none or not there.
    """
    import torch

    wanted = names(device)[0]
    if wanted == "auto":
        wanted = next((kind for kind in ORDER if KINDS[kind].is_there()), "cpu")
    try:
        place = torch.device(wanted)
        kind = KINDS[place.type]
    except (RuntimeError, KeyError):
        raise UsageError(f"{wanted!r} is no device; auto, cpu, cuda, mps and xpu are") from None
    if not kind.is_there():
        what = place.type.upper()
        raise UsageError(f"there is no {what} device here; use cpu ({kind.why_not()})")
    return kind(place)
